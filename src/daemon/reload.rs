//! Reading the settings again, for SIGHUP.

use std::sync::Arc;

use arc_swap::ArcSwap;
use sd_notify::NotifyState;
use tracing_subscriber::EnvFilter;

use super::{backoff, notify, orchestrator};
use crate::config::Config;
use crate::pod::Services;

/// Changes what is logged.
pub(super) type SetLevel = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send>;
/// Gives the settings as they are written now.
type Settle = Box<dyn Fn() -> Result<Config, String> + Send>;

/// The settings in force, and how they are changed.
pub(super) struct Reload {
    config: Config,
    settle: Settle,
    set_level: SetLevel,
    shown: Arc<ArcSwap<String>>,
}

impl Reload {
    pub(super) fn new(config: Config, settle: Settle, set_level: SetLevel) -> Self {
        let shown = Arc::new(ArcSwap::from_pointee(config.text()));
        Self { config, settle, set_level, shown }
    }

    /// The settings in force, for people.
    pub(super) fn shown(&self) -> Arc<ArcSwap<String>> {
        self.shown.clone()
    }

    /// Takes what can be taken; a mistake anywhere leaves everything as it is.
    pub(super) fn now(&mut self, services: &Services) {
        // systemd wants the time with it, to tell this reload from one before.
        let reloading = NotifyState::monotonic_usec_now()
            .and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now]));
        if let Err(error) = reloading {
            tracing::warn!(%error, "cannot notify the service manager");
        }
        match self.take(services) {
            Ok(left) if left.is_empty() => tracing::info!("the settings were reloaded"),
            Ok(left) => tracing::warn!(
                restart_for = left.join(", "),
                "the settings were reloaded; some that have changed need a restart"
            ),
            Err(error) => {
                tracing::error!(%error, "the settings can't be reloaded and stay as they were");
            }
        }
        notify(NotifyState::Ready);
    }

    fn take(&mut self, services: &Services) -> Result<Vec<&'static str>, String> {
        let (config, left) = self.config.reloaded(&(self.settle)()?);
        let filter = EnvFilter::try_new(&config.log.level).map_err(|error| error.to_string())?;
        (self.set_level)(filter)?;
        services.backoff.store(Arc::new(backoff(&config.healing)));
        services.presence.configure(orchestrator(&config.healing));
        self.shown.store(Arc::new(config.text()));
        self.config = config;
        Ok(left)
    }
}
