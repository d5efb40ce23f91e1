//! Version, Status, RuntimeConfig, UpdateRuntimeConfig.

use std::collections::HashMap;

use serde_json::json;
use tonic::Status;

use super::Face;
use super::status::invalid;
use crate::pod::cgroup::Driver;
use crate::proto::cri;
use crate::sys::cgroup;

/// The CRI this daemon speaks.
const CRI_VERSION: &str = "v1";
/// What kubelets expect in `version`, whatever they send.
const KUBE_API_VERSION: &str = "0.1.0";

impl Face {
    pub(super) fn version() -> cri::VersionResponse {
        cri::VersionResponse {
            version: KUBE_API_VERSION.to_owned(),
            runtime_name: "haled".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: CRI_VERSION.to_owned(),
        }
    }

    pub(super) fn status(&self, request: &cri::StatusRequest) -> cri::StatusResponse {
        let services = self.pods.services();
        let condition = |name: &str, problem: Option<(&str, String)>| {
            let (reason, message) = problem.unwrap_or_default();
            cri::RuntimeCondition {
                r#type: name.to_owned(),
                status: message.is_empty(),
                reason: reason.to_owned(),
                message,
            }
        };
        let default = services.runtimes.get(&services.default_handler);
        let runtime = match default {
            Some(runtime) if runtime.path.is_file() => None,
            Some(runtime) => Some((
                "OCIRuntimeMissing",
                format!(
                    "the OCI runtime \"{}\" is not at {}: install it, or set runtime.handlers.{}.path",
                    runtime.name,
                    runtime.path.display(),
                    runtime.name
                ),
            )),
            None => Some((
                "OCIRuntimeMissing",
                format!("the default handler \"{}\" is not configured", services.default_handler),
            )),
        };
        let network = services.network.ready().err();
        let network = network.map(|error| ("NetworkPluginNotReady", error.to_string()));
        let conditions =
            vec![condition("RuntimeReady", runtime), condition("NetworkReady", network)];
        // The default handler is listed under its own name and as the unnamed one.
        let names = services.runtimes.keys().map(String::as_str).chain([""]);
        let runtime_handlers = names.map(|name| cri::RuntimeHandler {
            name: name.to_owned(),
            features: Some(cri::RuntimeHandlerFeatures {
                recursive_read_only_mounts: self.about.recursive_readonly.contains(
                    if name.is_empty() { services.default_handler.as_str() } else { name },
                ),
                user_namespaces: self.about.user_namespaces,
            }),
        });
        let mut info = HashMap::new();
        if request.verbose {
            info.insert("config".to_owned(), self.about.config.load().to_string());
            let runtimes: HashMap<_, _> =
                services.runtimes.iter().map(|(name, runtime)| (name, &runtime.path)).collect();
            let more = json!({
                "version": env!("CARGO_PKG_VERSION"),
                "cgroupVersion": match cgroup::version() {
                    cgroup::Version::V1 => 1,
                    cgroup::Version::V2 => 2,
                },
                "runtimes": runtimes,
                "pods": self.pods.views().len(),
                "orchestratorPresent": services.presence.there(std::time::Instant::now()),
            });
            info.insert("info".to_owned(), more.to_string());
        }
        cri::StatusResponse {
            status: Some(cri::RuntimeStatus { conditions }),
            info,
            runtime_handlers: runtime_handlers.collect(),
            features: Some(cri::RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: false,
            }),
        }
    }

    /// Kubelets take this driver over their own setting (KEP-4033).
    pub(super) fn runtime_config(&self) -> cri::RuntimeConfigResponse {
        let driver = match self.pods.services().cgroup_driver {
            Driver::Cgroupfs => cri::CgroupDriver::Cgroupfs,
            Driver::Systemd => cri::CgroupDriver::Systemd,
        };
        let linux = cri::LinuxRuntimeConfiguration { cgroup_driver: driver.into() };
        cri::RuntimeConfigResponse { linux: Some(linux) }
    }

    /// The pod CIDR of a kubelet that manages one, for plugins that take ranges.
    pub(super) fn update_runtime_config(
        &self,
        request: &cri::UpdateRuntimeConfigRequest,
    ) -> Result<cri::UpdateRuntimeConfigResponse, Status> {
        let network = request.runtime_config.as_ref().and_then(|c| c.network_config.as_ref());
        if let Some(network) = network.filter(|network| !network.pod_cidr.is_empty()) {
            let taken = self.pods.services().network.set_pod_cidrs(&network.pod_cidr);
            taken
                .map_err(|why| invalid(format!("runtime_config.network_config.pod_cidr: {why}")))?;
            tracing::info!(pod_cidr = network.pod_cidr, "pods get their addresses from this range");
        }
        Ok(cri::UpdateRuntimeConfigResponse {})
    }
}
