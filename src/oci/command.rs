//! What is executed, with which environment and where: the image's wishes under the
//! container's.

use super::Error;
use super::model::EnvVar;
use super::{ImageDefaults, Input};

/// PATH where neither image nor container sets one.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Arguments, and variables, of one process.
const MAX_ENTRIES: usize = 65_536;
/// Bytes of one argument or variable: the kernel's MAX_ARG_STRLEN (execve(2)).
const MAX_ENTRY_BYTES: usize = 128 * 1024;
/// Bytes of a path: PATH_MAX.
pub(super) const MAX_PATH_BYTES: usize = 4096;

/// The command line. `command` replaces the entrypoint and drops cmd; `args` replaces cmd
/// (the CRI's ContainerConfig.command and args).
pub(super) fn args(input: &Input<'_>) -> Result<Vec<String>, Error> {
    let ImageDefaults { entrypoint, cmd, .. } = input.image;
    let (first, second) = match (input.command.is_empty(), input.args.is_empty()) {
        (false, _) => (input.command, input.args),
        (true, false) => (entrypoint, input.args),
        (true, true) => (entrypoint, cmd),
    };
    let args: Vec<String> = first.iter().chain(second).cloned().collect();
    check("args", &args)?;
    match args.first() {
        None => Err(Error::NoCommand),
        Some(program) if program.is_empty() => {
            Err(Error::invalid("command[0]", program, "is empty: name the program to run"))
        }
        Some(_) => Ok(args),
    }
}

/// Refuses what no exec of the kernel takes.
pub(super) fn check(field: &str, list: &[String]) -> Result<(), Error> {
    if list.len() > MAX_ENTRIES {
        let why = format!("entries are too many: at most {MAX_ENTRIES}");
        return Err(Error::invalid(field, list.len(), why));
    }
    for (index, entry) in list.iter().enumerate() {
        check_text(&format!("{field}[{index}]"), entry)?;
    }
    Ok(())
}

fn check_text(field: &str, text: &str) -> Result<(), Error> {
    if text.contains('\0') {
        return Err(Error::invalid(field, text, "holds a NUL byte, which no process can be given"));
    }
    if text.len() > MAX_ENTRY_BYTES {
        let why = format!("is {} bytes long: at most {MAX_ENTRY_BYTES}", text.len());
        return Err(Error::invalid(field, text, why));
    }
    Ok(())
}

/// The environment: defaults, then the image's, then the container's; a later value takes
/// the place of an earlier one.
pub(super) fn env(input: &Input<'_>) -> Result<Vec<String>, Error> {
    let mut merged = Environment::default();
    merged.set("PATH", DEFAULT_PATH);
    if input.tty {
        merged.set("TERM", "xterm");
    }
    if !input.hostname.is_empty() {
        merged.set("HOSTNAME", input.hostname);
    }
    for (index, variable) in input.image.env.iter().enumerate() {
        let field = format!("image env[{index}]");
        let Some((name, value)) = variable.split_once('=') else {
            return Err(Error::invalid(field, variable, "has no \"=\": rebuild the image"));
        };
        check_variable(&field, name, value)?;
        merged.set(name, value);
    }
    for (index, EnvVar { name, value }) in input.env.iter().enumerate() {
        check_variable(&format!("env[{index}]"), name, value)?;
        merged.set(name, value);
    }
    let list = merged.into_list();
    if list.len() > MAX_ENTRIES {
        let why = format!("variables are too many: at most {MAX_ENTRIES}");
        return Err(Error::invalid("env", list.len(), why));
    }
    Ok(list)
}

fn check_variable(field: &str, name: &str, value: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::invalid(field, name, "is no name of a variable: it is empty"));
    }
    if name.contains('=') {
        return Err(Error::invalid(field, name, "is no name of a variable: it holds \"=\""));
    }
    check_text(field, name)?;
    check_text(&format!("{field} ({name})"), value)
}

/// Variables in the order of their first mention.
#[derive(Default)]
struct Environment {
    order: Vec<String>,
    values: std::collections::HashMap<String, String>,
}

impl Environment {
    fn set(&mut self, name: &str, value: &str) {
        if self.values.insert(name.to_owned(), value.to_owned()).is_none() {
            self.order.push(name.to_owned());
        }
    }

    fn into_list(self) -> Vec<String> {
        self.order.iter().map(|name| format!("{name}={}", self.values[name])).collect()
    }
}

/// The working directory: the container's, else the image's, else `/`.
pub(super) fn cwd(input: &Input<'_>) -> Result<String, Error> {
    let cwd = [input.working_dir, input.image.working_dir, "/"]
        .into_iter()
        .find(|each| !each.is_empty())
        .unwrap_or("/");
    // An image may say `app`, meaning `/app`; a container's own must be exact.
    let cwd = match cwd.starts_with('/') {
        true => cwd.to_owned(),
        false if input.working_dir.is_empty() => format!("/{cwd}"),
        false => {
            return Err(Error::invalid("working_dir", cwd, "is not absolute: start it with /"));
        }
    };
    if cwd.contains('\0') || cwd.len() > MAX_PATH_BYTES {
        return Err(Error::invalid("working_dir", cwd, "is no path: it holds NUL or is too long"));
    }
    Ok(cwd)
}
