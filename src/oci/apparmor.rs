//! AppArmor: which profile a container has, and haled's own, loaded where it is first needed.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Error;
use super::host::{self, Host};
use super::model::{Profile, Security};

/// The profile of who asks for the default one.
pub(super) const DEFAULT: &str = "haled-default";
/// The field, in the words of the container's configuration.
const FIELD: &str = "apparmor";
/// What compiles profiles and hands them to the kernel.
const PARSER: &str = "apparmor_parser";

/// Which kinds of rule the profile means: without it, mounts and signals are not looked at by
/// parsers that know later kinds.
const ABI: &str = "abi <abi/3.0>,\n";
/// Where that is described, by AppArmor 3 and later.
const ABI_FILE: &str = "/etc/apparmor.d/abi/3.0";
/// What an error repeats of the parser's words, in characters.
const MAX_WORDS: usize = 500;

/// haled's own (apparmor.d(5)). Everything is allowed but what changes or reads the machine
/// beyond the container, which its other walls forbid as well: this is the second one. Nothing is
/// included, so that it loads on machines without the distribution's abstractions.
const TEXT: &str = "\
profile haled-default flags=(attach_disconnected,mediate_deleted) {
  network,
  capability,
  file,
  umount,
  signal (receive) peer=unconfined,
  signal (receive) peer=runc,
  signal (receive) peer=crun,
  signal (receive) peer=youki,
  signal (send,receive) peer=haled-default,
  ptrace (trace,read,tracedby,readby) peer=haled-default,
  deny mount,
  deny /proc/{kcore,kmem,mem,sysrq-trigger} rwkl,
  deny /proc/{acpi,bus,irq,scsi}/** wkl,
  deny /proc/sys/{abi,crypto,debug,dev,sunrpc,user,vm}/** wkl,
  deny /proc/sys/fs/[^m]** wkl,
  deny /proc/sys/kernel/{core_pattern,core_pipe_limit,hotplug,modprobe,modules_disabled} wkl,
  deny /proc/sys/kernel/{dmesg_restrict,kexec_load_disabled,kptr_restrict,sysrq} wkl,
  deny /proc/sys/kernel/{panic*,perf_*,printk*,unprivileged_*} wkl,
  deny /sys/{block,bus,class,dev,devices,hypervisor,module,power}/** wkl,
  deny /sys/fs/[^c]** wkl,
  deny /sys/{firmware,kernel/debug,kernel/security}/** rwkl,
  deny /sys/kernel/** wkl,
}
";

/// Loads haled's own profile where it will be needed and isn't there yet. Blocks.
pub(super) fn prepare(security: &Security, host: &mut Host) -> Result<(), Error> {
    let Some(loaded) = &mut host.apparmor else { return Ok(()) };
    let asked = match &security.apparmor {
        Some(Profile::RuntimeDefault) => true,
        None => false,
        Some(Profile::Localhost(name)) if name == DEFAULT => true,
        Some(_) => return Ok(()),
    };
    if security.privileged || loaded.contains(DEFAULT) {
        return Ok(());
    }
    match load() {
        Ok(()) => {
            loaded.insert(DEFAULT.to_owned());
            Ok(())
        }
        Err(why) if asked => Err(Error::unsupported(FIELD, why)),
        Err(why) => {
            tracing::warn!(why, "a container that asks for no AppArmor profile runs without one");
            Ok(())
        }
    }
}

fn load() -> Result<(), String> {
    let parser = host::resolve_path(PARSER).ok_or_else(|| {
        format!("{DEFAULT} can't be loaded: install {PARSER}, or ask for the profile Unconfined")
    })?;
    let run = || {
        // Replaced if another creation was quicker; no cache is written.
        let mut child = Command::new(&parser)
            .args(["--replace", "--skip-cache"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let abi = if Path::new(ABI_FILE).exists() { ABI } else { "" };
        let text = format!("{abi}{TEXT}");
        let mut stdin = child.stdin.take();
        let written = stdin.as_mut().map_or(Ok(()), |stdin| stdin.write_all(text.as_bytes()));
        drop(stdin);
        let output = child.wait_with_output()?;
        written.map(|()| output)
    };
    let output = run().map_err(|error| format!("cannot run {}: {error}", parser.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let words: String = String::from_utf8_lossy(&output.stderr).chars().take(MAX_WORDS).collect();
    Err(format!("{} can't load {DEFAULT}: {}", parser.display(), words.trim()))
}

/// The profile's name, where the kernel has AppArmor.
pub(super) fn profile(security: &Security, host: &Host) -> Result<Option<String>, Error> {
    match (&security.apparmor, &host.apparmor) {
        (Some(Profile::Localhost(name)), _) if name.is_empty() || name.contains(['\0', '\n']) => {
            Err(Error::invalid(FIELD, name, "is no profile's name"))
        }
        (Some(Profile::Localhost(_)), None) => {
            Err(Error::unsupported(FIELD, "AppArmor isn't active in this machine's kernel"))
        }
        (Some(Profile::Localhost(name)), Some(loaded)) if loaded.contains(name) => {
            Ok(Some(name.clone()))
        }
        (Some(Profile::Localhost(name)), Some(_)) => {
            let why = format!("profile {name:?} isn't loaded: load it with apparmor_parser");
            Err(Error::unsupported(FIELD, why))
        }
        (Some(Profile::Unconfined), Some(_)) => Ok(Some("unconfined".to_owned())),
        (None | Some(Profile::RuntimeDefault), Some(loaded))
            if !security.privileged && loaded.contains(DEFAULT) =>
        {
            Ok(Some(DEFAULT.to_owned()))
        }
        (_, _) => Ok(None),
    }
}
