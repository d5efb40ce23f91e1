//! Signals to a container's init.

use std::str::FromStr as _;

use nix::sys::signal::Signal;

use super::Error;
use super::state::Init;
use crate::id::ContainerId;
use crate::monitor::client::{Error as MonitorError, Monitor};
use crate::sys::process;

/// The first real-time signal that the C library leaves to programs (signal(7)).
const SIGRTMIN: i32 = 34;
/// The last.
const SIGRTMAX: i32 = 64;

/// The number of a stop signal as images and the CRI spell it: `SIGTERM`, `TERM`, `15`,
/// `SIGRTMIN+3`. `None`: there is no such signal.
pub fn signal_number(text: &str) -> Option<i32> {
    let name = text.trim().to_ascii_uppercase();
    if let Ok(number) = name.parse::<i32>() {
        return (1..=SIGRTMAX).contains(&number).then_some(number);
    }
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    // `RTMIN+3`, and `RTMINPLUS3` as the CRI has it: what follows the sign is the offset.
    let offset = |rest: &str, sign: &str, word: &str| {
        let digits = rest.strip_prefix(sign).or_else(|| rest.strip_prefix(word));
        if rest.is_empty() { Some(0) } else { digits?.parse::<u8>().ok().map(i32::from) }
    };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        offset(rest, "+", "PLUS").map(|offset| SIGRTMIN + offset)
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        offset(rest, "-", "MINUS").map(|offset| SIGRTMAX - offset)
    } else {
        Signal::from_str(&format!("SIG{name}")).ok().map(|signal| signal as i32)
    };
    number.filter(|number| (1..=SIGRTMAX).contains(number))
}

/// What a stop sends: the configuration's signal, else the image's, else SIGTERM. One that
/// no kernel knows counts as not given, as other runtimes have it.
pub fn choose(of_config: Option<&str>, of_image: &str) -> String {
    let known = of_config.into_iter().chain([of_image]).find(|name| signal_number(name).is_some());
    known.unwrap_or("SIGTERM").to_owned()
}

/// Signals a container's init. One that has ended is no error.
pub async fn signal(
    monitor: Option<&Monitor>,
    id: &ContainerId,
    init: Init,
    signal: i32,
) -> Result<(), Error> {
    let sent = match monitor {
        Some(monitor) => monitor.signal(id.as_str(), signal).await,
        None => Err(MonitorError::Gone),
    };
    match sent {
        Err(MonitorError::Gone) => {
            let done =
                process::open(init.pid, init.start_ticks).and_then(|process| match process {
                    Some(process) => process::signal(&process, signal),
                    None => Ok(()),
                });
            done.map_err(|source| Error::Io { doing: format!("cannot signal {id}"), source })
        }
        sent => sent.map_err(|source| Error::Monitor { id: id.clone(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::signal_number;

    #[test]
    fn signals_are_known_by_every_common_spelling() {
        for (text, number) in [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("9", Some(9)),
            (" SIGQUIT ", Some(3)),
            ("SIGRTMIN", Some(34)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMINPLUS3", Some(37)),
            ("SIGRTMAX-1", Some(63)),
            ("", None),
            ("0", None),
            ("65", None),
            ("SIGRTMIN+99", None),
            ("SIGRTMINé", None),
            ("SIGNOTHING", None),
        ] {
            assert_eq!(signal_number(text), number, "{text:?}");
        }
    }
}
