//! Classes of block I/O: weights and throttles of devices, by name, from a file that whoever
//! runs the node writes. It is the file of containerd and CRI-O (goresctrl's blockio.md).

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use oci_spec::OciSpecError;
use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDeviceBuilder, LinuxWeightDeviceBuilder};
use serde::Deserialize;

use super::Error;
use crate::sys::cgroup::{self, Version};

/// The field, in the words of the container's configuration.
const FIELD: &str = "resources.blockio_class";
/// Bytes of the file.
const MAX_FILE: u64 = 1 << 20;
/// Devices that one pattern may find.
const MAX_DEVICES: usize = 1024;
/// The kernel's I/O weights, v1 scale.
const WEIGHTS: std::ops::RangeInclusive<u64> = 10..=1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "Classes", alias = "classes", default)]
    classes: BTreeMap<String, Vec<Parameters>>,
}

/// Of some devices; of all, where it names none.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Parameters {
    #[serde(rename = "Devices", alias = "devices")]
    devices: Vec<String>,
    #[serde(rename = "Weight", alias = "weight")]
    weight: Option<Quantity>,
    #[serde(rename = "ThrottleReadBps", alias = "throttleReadBps")]
    read_bps: Option<Quantity>,
    #[serde(rename = "ThrottleWriteBps", alias = "throttleWriteBps")]
    write_bps: Option<Quantity>,
    #[serde(rename = "ThrottleReadIOPS", alias = "throttleReadIOPS")]
    read_iops: Option<Quantity>,
    #[serde(rename = "ThrottleWriteIOPS", alias = "throttleWriteIOPS")]
    write_iops: Option<Quantity>,
}

/// `50M`, or a number as it is.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Quantity {
    Number(u64),
    Text(String),
}

/// What the container is limited to by its class; `config`: the file of classes. Blocks for a
/// read of it and a look at /dev.
pub(super) fn limits(
    class: Option<&str>,
    config: Option<&Path>,
) -> Result<Option<LinuxBlockIo>, Error> {
    let Some(class) = class else { return Ok(None) };
    let Some(path) = config else {
        let why = format!("{class:?} needs a file of classes: set runtime.blockio_config_file");
        return Err(Error::unsupported(FIELD, why));
    };
    let controller = if cgroup::version() == Version::V1 { "blkio" } else { "io" };
    if !cgroup::has_controller(controller) {
        let why = format!("{class:?} needs the {controller} cgroup controller, which isn't there");
        return Err(Error::unsupported(FIELD, why));
    }
    let told = path.display();
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
        .map_err(|error| Error::host(format!("read {told}"), error))?;
    of_class(&text, class, &whole_disks)
        .map(Some)
        .map_err(|why| Error::unsupported(FIELD, format!("{told}: {why}")))
}

/// The class as a file's text has it. `find`: the devices of a pattern.
fn of_class(
    text: &str,
    class: &str,
    find: &impl Fn(&str) -> Result<Vec<(u32, u32)>, String>,
) -> Result<LinuxBlockIo, String> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let Some(all) = file.classes.get(class) else {
        let known: Vec<&str> = file.classes.keys().map(String::as_str).collect();
        return Err(format!("there is no class {class:?}; there are: {}", known.join(", ")));
    };
    let bad = |what: &str| format!("class {class}: {what}");
    let mut limits = Limits::default();
    for parameters in all {
        limits.add(parameters, find).map_err(|what| bad(&what))?;
    }
    limits.into_spec().map_err(|error| bad(&error.to_string()))
}

type Rates = BTreeMap<(u32, u32), u64>;

/// A later value of a device is in place of an earlier one.
#[derive(Default)]
struct Limits {
    weight: Option<u16>,
    weights: BTreeMap<(u32, u32), u16>,
    read_bps: Rates,
    write_bps: Rates,
    read_iops: Rates,
    write_iops: Rates,
}

impl Limits {
    fn add(
        &mut self,
        of: &Parameters,
        find: &impl Fn(&str) -> Result<Vec<(u32, u32)>, String>,
    ) -> Result<(), String> {
        let weight = of.weight.as_ref().map(weight).transpose()?;
        let rates = [
            ("ThrottleReadBps", &of.read_bps, &mut self.read_bps),
            ("ThrottleWriteBps", &of.write_bps, &mut self.write_bps),
            ("ThrottleReadIOPS", &of.read_iops, &mut self.read_iops),
            ("ThrottleWriteIOPS", &of.write_iops, &mut self.write_iops),
        ];
        if of.devices.is_empty() {
            if let Some((name, ..)) = rates.iter().find(|(_, rate, _)| rate.is_some()) {
                return Err(format!("{name} needs Devices"));
            }
            self.weight = weight.or(self.weight);
            return Ok(());
        }
        let mut devices = Vec::new();
        for pattern in &of.devices {
            devices.extend(find(pattern)?);
        }
        if devices.is_empty() {
            tracing::warn!(devices = ?of.devices, "no disk is one of a block I/O class's");
        }
        if let Some(weight) = weight {
            self.weights.extend(devices.iter().map(|device| (*device, weight)));
        }
        for (name, rate, known) in rates {
            if let Some(rate) = rate {
                let rate = quantity(rate).map_err(|why| format!("{name}: {why}"))?;
                known.extend(devices.iter().map(|device| (*device, rate)));
            }
        }
        Ok(())
    }

    fn into_spec(self) -> Result<LinuxBlockIo, OciSpecError> {
        let throttles = |rates: Rates| {
            let throttle = |((major, minor), rate): ((u32, u32), u64)| {
                LinuxThrottleDeviceBuilder::default().major(major).minor(minor).rate(rate).build()
            };
            let list = rates.into_iter().map(throttle).collect::<Result<Vec<_>, _>>();
            list.map(|list| Some(list).filter(|list| !list.is_empty()))
        };
        let weight = |((major, minor), weight): ((u32, u32), u16)| {
            LinuxWeightDeviceBuilder::default().major(major).minor(minor).weight(weight).build()
        };
        let weights = self.weights.into_iter().map(weight).collect::<Result<Vec<_>, _>>()?;
        let mut spec = LinuxBlockIo::default();
        spec.set_weight(self.weight)
            .set_weight_device(Some(weights).filter(|list| !list.is_empty()))
            .set_throttle_read_bps_device(throttles(self.read_bps)?)
            .set_throttle_write_bps_device(throttles(self.write_bps)?)
            .set_throttle_read_iops_device(throttles(self.read_iops)?)
            .set_throttle_write_iops_device(throttles(self.write_iops)?);
        Ok(spec)
    }
}

fn weight(text: &Quantity) -> Result<u16, String> {
    let number = quantity(text).map_err(|why| format!("Weight: {why}"))?;
    let fits = WEIGHTS.contains(&number).then(|| u16::try_from(number).ok()).flatten();
    fits.ok_or_else(|| format!("Weight: {number} is out of range: 10 to 1000"))
}

/// As Kubernetes writes them: a whole number and k, M, G, T, or Ki, Mi, Gi, Ti.
fn quantity(text: &Quantity) -> Result<u64, String> {
    let text = match text {
        Quantity::Number(number) => return Ok(*number),
        Quantity::Text(text) => text.trim(),
    };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit: Option<u64> = match text[digits..].trim() {
        "" => Some(1),
        "k" => Some(1_000),
        "M" => Some(1_000_000),
        "G" => Some(1_000_000_000),
        "T" => Some(1_000_000_000_000),
        "Ki" => Some(1 << 10),
        "Mi" => Some(1 << 20),
        "Gi" => Some(1 << 30),
        "Ti" => Some(1 << 40),
        _ => None,
    };
    let number = text[..digits].parse::<u64>().ok().zip(unit);
    let number = number.and_then(|(number, unit)| number.checked_mul(unit));
    number.ok_or_else(|| format!("{text:?} is no whole number such as 50M or 10Ki"))
}

/// The disks that a pattern of paths finds: the kernel limits no partition by itself.
fn whole_disks(pattern: &str) -> Result<Vec<(u32, u32)>, String> {
    if !pattern.starts_with('/') {
        return Err(format!("Devices: {pattern:?} is no absolute path"));
    }
    let paths = glob::glob(pattern).map_err(|error| format!("Devices: {pattern:?}: {error}"))?;
    let disk = |path: std::path::PathBuf| {
        let meta = fs::metadata(path).ok().filter(|meta| meta.file_type().is_block_device())?;
        let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
        let partition = format!("/sys/dev/block/{major}:{minor}/partition");
        (!Path::new(&partition).exists()).then_some((major, minor))
    };
    // What can't be looked at isn't there.
    Ok(paths.flatten().take(MAX_DEVICES).filter_map(disk).collect())
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxThrottleDevice;

    use super::*;

    const TEXT: &str = "\
Classes:
  slow:
    - Weight: 80
    - Devices: [/dev/sd*, /dev/vda]
      ThrottleReadBps: 50M
      ThrottleWriteBps: 1Ki
      ThrottleReadIOPS: 10k
      ThrottleWriteIOPS: 5
      Weight: 50
    - Devices: [/dev/sdb]
      ThrottleReadBps: 100M
  fast:
    - Weight: 400
  any: []
";

    #[allow(clippy::unnecessary_wraps)]
    fn find(pattern: &str) -> Result<Vec<(u32, u32)>, String> {
        Ok(match pattern {
            "/dev/sd*" => vec![(8, 0), (8, 16)],
            "/dev/sdb" => vec![(8, 16)],
            "/dev/vda" => vec![(254, 0)],
            _ => vec![],
        })
    }

    #[test]
    fn a_class_has_the_last_word_on_each_device() {
        let slow = of_class(TEXT, "slow", &find).unwrap();
        assert_eq!(slow.weight(), Some(80));
        let weights: Vec<_> = slow.weight_device().clone().unwrap();
        let weights: Vec<_> =
            weights.iter().map(|one| (one.major(), one.minor(), one.weight())).collect();
        assert_eq!(weights, [(8, 0, Some(50)), (8, 16, Some(50)), (254, 0, Some(50))]);
        let rates = |list: &Option<Vec<LinuxThrottleDevice>>| {
            let list = list.clone().unwrap();
            list.iter().map(|one| (one.minor(), one.rate())).collect::<Vec<_>>()
        };
        let read = rates(slow.throttle_read_bps_device());
        assert_eq!(read, [(0, 50_000_000), (16, 100_000_000), (0, 50_000_000)]);
        assert_eq!(rates(slow.throttle_write_bps_device())[0], (0, 1024));
        assert_eq!(rates(slow.throttle_read_iops_device())[0], (0, 10_000));
        assert_eq!(rates(slow.throttle_write_iops_device())[0], (0, 5));
        let fast = of_class(TEXT, "fast", &find).unwrap();
        assert_eq!((fast.weight(), fast.weight_device().is_none()), (Some(400), true));
        assert_eq!(of_class(TEXT, "any", &find).unwrap(), LinuxBlockIo::default());
    }

    #[test]
    fn what_is_wrong_is_told() {
        let one = |parameters: &str| format!("Classes:\n  a:\n    - {parameters}\n");
        for (text, why) in [
            (TEXT.to_owned(), "there is no class \"a\"; there are: any, fast, slow"),
            (one("Weight: 9"), "class a: Weight: 9 is out of range: 10 to 1000"),
            (one("Weight: much"), "\"much\" is no whole number"),
            (one("ThrottleReadBps: 1M"), "ThrottleReadBps needs Devices"),
            (one("{Devices: [/dev/vda], ThrottleReadBps: 1X}"), "ThrottleReadBps: \"1X\""),
            (one("{Devices: [/dev/vda], ThrottleReadBps: 99999999999T}"), "is no whole number"),
            (one("Wieght: 80"), "Wieght"),
            ("Classes: 7".to_owned(), ""),
            ("\u{0}".to_owned(), ""),
        ] {
            let error = of_class(&text, "a", &find).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn patterns_find_whole_disks_alone() {
        assert_eq!(whole_disks("/dev/null").unwrap(), []);
        assert_eq!(whole_disks("/no/such/*").unwrap(), []);
        assert!(whole_disks("vda").unwrap_err().contains("no absolute path"));
        assert!(whole_disks("/dev/[").unwrap_err().contains("/dev/["));
        for (major, minor) in whole_disks("/dev/*").unwrap() {
            let disk = format!("/sys/dev/block/{major}:{minor}");
            assert!(!Path::new(&disk).join("partition").exists(), "{disk}");
        }
    }

    #[test]
    fn a_class_needs_a_file() {
        let error = limits(Some("fast"), None).unwrap_err().to_string();
        assert!(error.contains("runtime.blockio_config_file"), "{error}");
        assert_eq!(limits(None, None).unwrap(), None);
    }
}
