//! How plugins come: the socket, registration, configuration, and all that is there.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use prost::Message as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Child;
use tokio::sync::{Mutex, Semaphore, oneshot};
use tokio::time::timeout;

use super::api::{
    ConfigureRequest, ConfigureResponse, Container, ContainerUpdate, Empty, PodSandbox,
    RegisterPluginRequest, SynchronizeRequest, SynchronizeResponse, UpdateContainersRequest,
    UpdateContainersResponse,
};
use super::connection::{Connection, Serve};
use super::plugin::{ALL_EVENTS, Plugin};
use super::{Node, Plugins, launch};

/// Connections that may be on their way to being plugins.
const NEWCOMERS: usize = 16;
/// Bytes of pods and containers told at once: well below what a message may have.
const PART: usize = 2 << 20;
/// The version of NRI that this speaks.
const NRI_VERSION: &str = "v0.12.0";
/// After a connection could not be accepted, which is for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A plugin that haled starts.
pub(super) struct Launched {
    /// `10-name`.
    pub(super) name: String,
    /// What the administrator wrote for it.
    pub(super) config: String,
    pub(super) process: Child,
    pub(super) socket: UnixStream,
}

impl Plugins {
    /// Starts the plugins that are installed, waits until they are in, and lets in those that
    /// connect from then on.
    pub async fn serve(&self, node: Arc<dyn Node>) -> io::Result<()> {
        let listener = self.inner.settings.socket.as_deref().map(bind).transpose()?;
        let all = launch::all(&self.inner.settings);
        let admitted = all.into_iter().map(|launched| {
            let (name, node) = (launched.name.clone(), node.clone());
            async move {
                match self.admit_launched(launched, node).await {
                    Ok(()) => {}
                    Err(why) => tracing::error!(plugin = name, why, "no NRI plugin came of it"),
                }
            }
        });
        join_all(admitted).await;
        if let Some(listener) = listener {
            tokio::spawn(self.clone().listen(listener, node));
        }
        Ok(())
    }

    async fn listen(self, listener: UnixListener, node: Arc<dyn Node>) {
        let places = Arc::new(Semaphore::new(NEWCOMERS));
        // The semaphore is never closed.
        while let Ok(place) = places.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((socket, _)) => {
                    let (plugins, node) = (self.clone(), node.clone());
                    tokio::spawn(async move {
                        let admitted = plugins.admit(socket, None, node).await;
                        drop(place);
                        if let Err(why) = admitted {
                            tracing::warn!(why, "a connection became no NRI plugin");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an NRI plugin");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn admit_launched(&self, it: Launched, node: Arc<dyn Node>) -> Result<(), String> {
        self.admit(it.socket, Some((it.name, it.config, it.process)), node).await
    }

    /// The way from a connection to a plugin; an error says why it isn't one.
    async fn admit(
        &self,
        socket: UnixStream,
        launched: Option<(String, String, Child)>,
        node: Arc<dyn Node>,
    ) -> Result<(), String> {
        let settings = &self.inner.settings;
        let (given, config, process) = match launched {
            Some((name, config, process)) => (Some(name), config, Some(process)),
            None => (None, String::new(), None),
        };
        let (sender, registered) = oneshot::channel();
        let name: Arc<OnceLock<String>> = Arc::default();
        let face = Face {
            given,
            name: name.clone(),
            registered: Mutex::new(Some(sender)),
            node: node.clone(),
        };
        let face = Arc::new(face);
        let serve: Serve = Arc::new(move |method, payload| {
            let face = face.clone();
            async move { face.answer(&method, &payload).await }.boxed()
        });
        let connection = Connection::new(socket, serve);
        let name = tokio::select! {
            registered = timeout(settings.registration_timeout, registered) => {
                registered.ok().and_then(Result::ok)
            }
            () = connection.closed() => return Err("it closed before it had registered".to_owned()),
        };
        let Some(name) = name else {
            connection.close();
            let limit = settings.registration_timeout.as_millis();
            return Err(format!("it did not register within {limit} ms"));
        };
        let admitted = self.configure(&name, config, &connection, process).await;
        let plugin = admitted.inspect_err(|_| connection.close())?;
        self.synchronize(plugin, node.as_ref()).await.inspect_err(|_| connection.close())?;
        let (plugins, closed) = (self.clone(), connection.closed());
        tokio::spawn(async move {
            closed.await;
            tracing::info!(plugin = name, "an NRI plugin has gone");
            plugins.inner.state.lock().await.drop_closed();
        });
        Ok(())
    }

    async fn configure(
        &self,
        name: &str,
        config: String,
        connection: &Connection,
        process: Option<Child>,
    ) -> Result<Plugin, String> {
        let settings = &self.inner.settings;
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let request = ConfigureRequest {
            config,
            runtime_name: "haled".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            registration_timeout: millis(settings.registration_timeout),
            request_timeout: millis(settings.request_timeout),
            nri_version: NRI_VERSION.to_owned(),
        };
        let limit = settings.request_timeout;
        let answer: ConfigureResponse = connection
            .call("Configure", &request, limit)
            .await
            .map_err(|error| format!("plugin {name} can't be configured: {error}"))?;
        let events = if answer.events == 0 { ALL_EVENTS } else { answer.events };
        if events & !ALL_EVENTS != 0 {
            let unknown = events & !ALL_EVENTS;
            return Err(format!("plugin {name} asks for events that there are not: {unknown:#x}"));
        }
        Ok(Plugin {
            name: name.to_owned(),
            events,
            policy: answer.failure_policy.unwrap_or_default(),
            connection: connection.clone(),
            limit,
            plain: BTreeSet::new(),
            process,
        })
    }

    /// Tells a plugin all that is there and takes it in: no event comes between.
    async fn synchronize(&self, plugin: Plugin, node: &dyn Node) -> Result<(), String> {
        let settings = &self.inner.settings;
        // Events wait meanwhile, which is less bad than a plugin that never gets in.
        let limit = settings.registration_timeout.max(settings.request_timeout);
        let name = plugin.name.clone();
        let mut updates = Vec::new();
        {
            let mut state = self.inner.state.lock().await;
            let (pods, containers) = state.all();
            for request in parts(pods, containers) {
                let answer: SynchronizeResponse = plugin
                    .connection
                    .call("Synchronize", &request, limit)
                    .await
                    .map_err(|error| format!("plugin {name} can't be synchronized: {error}"))?;
                if request.more && (!answer.more || !answer.update.is_empty()) {
                    return Err(format!(
                        "plugin {name} does not take its pods and containers in parts, and they are more than one message holds"
                    ));
                }
                updates = answer.update;
            }
            state.add(plugin)?;
        }
        tracing::info!(plugin = name, "an NRI plugin has come");
        drop(update_all(node, updates, &name).await);
        Ok(())
    }
}

/// Does what a plugin asks for. Gives what failed and may not.
async fn update_all(
    node: &dyn Node,
    updates: Vec<ContainerUpdate>,
    plugin: &str,
) -> Vec<ContainerUpdate> {
    let mut failed = Vec::new();
    for update in updates {
        match node.update(update.clone()).await {
            Ok(()) => {}
            Err(why) => {
                let container = &update.container_id;
                tracing::warn!(plugin, container, why, "what an NRI plugin asks for can't be done");
                if !update.ignore_failure {
                    failed.push(update);
                }
            }
        }
    }
    failed
}

/// What a plugin can call.
struct Face {
    /// The name of one that haled has started.
    given: Option<String>,
    name: Arc<OnceLock<String>>,
    registered: Mutex<Option<oneshot::Sender<String>>>,
    node: Arc<dyn Node>,
}

impl Face {
    async fn answer(&self, method: &str, payload: &[u8]) -> Result<Vec<u8>, String> {
        let garbled = |error: prost::DecodeError| format!("{method}: {error}");
        match method {
            "RegisterPlugin" => {
                let request = RegisterPluginRequest::decode(payload).map_err(garbled)?;
                self.register(request).await?;
                Ok(Empty {}.encode_to_vec())
            }
            "UpdateContainers" => {
                let request = UpdateContainersRequest::decode(payload).map_err(garbled)?;
                let failed = self.update(request).await?;
                Ok(UpdateContainersResponse { failed }.encode_to_vec())
            }
            _ => Err(format!("there is no method {method}")),
        }
    }

    async fn register(&self, request: RegisterPluginRequest) -> Result<(), String> {
        let name = match &self.given {
            Some(name) => name.clone(),
            None => full_name(&request.plugin_idx, &request.plugin_name)?,
        };
        let Some(sender) = self.registered.lock().await.take() else {
            return Err("it has registered already".to_owned());
        };
        let name = self.name.get_or_init(|| name);
        // The other end is gone when it came too late; the connection is closed then.
        drop(sender.send(name.clone()));
        Ok(())
    }

    async fn update(
        &self,
        request: UpdateContainersRequest,
    ) -> Result<Vec<ContainerUpdate>, String> {
        let Some(name) = self.name.get() else { return Err("register first".to_owned()) };
        for eviction in request.evict {
            let container = eviction.container_id.clone();
            if let Err(why) = self.node.evict(eviction).await {
                return Err(format!("container {container} can't be evicted: {why}"));
            }
        }
        Ok(update_all(self.node.as_ref(), request.update, name).await)
    }
}

/// `10-name`, of two digits and a name.
pub(super) fn full_name(index: &str, name: &str) -> Result<String, String> {
    if index.len() != 2 || !index.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{index:?} is no index of a plugin: two digits are"));
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > 255 || !name.chars().all(fits) {
        return Err(format!("{name:?} is no name of a plugin: letters, digits, '-', '_' and '.'"));
    }
    Ok(format!("{index}-{name}"))
}

/// All that is there in messages of a bounded size, at least one.
fn parts(pods: Vec<PodSandbox>, containers: Vec<Container>) -> Vec<SynchronizeRequest> {
    let mut parts = vec![SynchronizeRequest::default()];
    let mut filled = 0;
    let mut room = |length: usize, parts: &mut Vec<SynchronizeRequest>| {
        if filled > 0 && filled + length > PART {
            parts.push(SynchronizeRequest::default());
            filled = 0;
        }
        filled += length;
    };
    for pod in pods {
        room(pod.encoded_len(), &mut parts);
        parts.last_mut().expect("it begins with one").pods.push(pod);
    }
    for container in containers {
        room(container.encoded_len(), &mut parts);
        parts.last_mut().expect("it begins with one").containers.push(container);
    }
    let last = parts.len() - 1;
    parts[..last].iter_mut().for_each(|part| part.more = true);
    parts
}

/// The socket, for root alone; what is left of an earlier one goes.
fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugins_name_is_two_digits_and_a_name() {
        assert_eq!(full_name("05", "a.b-c_d").unwrap(), "05-a.b-c_d");
        for (index, name) in [("5", "a"), ("005", "a"), ("x5", "a"), ("05", ""), ("05", "a/b")] {
            full_name(index, name).unwrap_err();
        }
    }

    #[test]
    fn a_long_list_is_told_in_parts_and_nothing_twice() {
        let pod = |n: usize| PodSandbox { id: n.to_string(), ..PodSandbox::default() };
        let container = |n: usize| Container {
            id: n.to_string(),
            args: vec!["x".repeat(1 << 20)],
            ..Container::default()
        };
        let parts = parts((0..9).map(pod).collect(), (0..5).map(container).collect());
        assert!(parts.len() > 2);
        assert!(parts.iter().all(|part| part.encoded_len() <= PART + 1024));
        let more: Vec<bool> = parts.iter().map(|part| part.more).collect();
        let (last, before) = more.split_last().unwrap();
        assert!(before.iter().all(|more| *more) && !last);
        assert_eq!(parts.iter().map(|part| part.pods.len()).sum::<usize>(), 9);
        let ids: Vec<&str> =
            parts.iter().flat_map(|part| &part.containers).map(|c| c.id.as_str()).collect();
        assert_eq!(ids, ["0", "1", "2", "3", "4"]);
        assert_eq!(super::parts(Vec::new(), Vec::new()), [SynchronizeRequest::default()]);
    }
}
