//! Classes of resources by annotation, as the CRI has no field for them: the kernel's resctrl
//! (Intel RDT and its like), and block I/O.

use std::collections::BTreeMap;

use tonic::Status;

use super::status::invalid;

type Annotations = BTreeMap<String, String>;

/// The resctrl class of a container.
pub(super) fn rdt(of_pod: &Annotations, of_container: &Annotations, name: &str) -> Option<String> {
    class("rdt", of_pod, of_container, name)
}

/// haled knows no classes of block I/O, and one that was asked for isn't dropped in silence.
pub(super) fn refuse_block_io(
    of_pod: &Annotations,
    of_container: &Annotations,
    name: &str,
) -> Result<(), Status> {
    match class("blockio", of_pod, of_container, name) {
        None => Ok(()),
        Some(class) => Err(invalid(format!(
            "block I/O class {class:?} of container {name:?}: haled has no such classes; \
             limit it with unified io.max or io.weight on cgroup v2"
        ))),
    }
}

/// The container's own annotation goes first, then the pod's for it, then the pod's for all.
fn class(
    kind: &str,
    of_pod: &Annotations,
    of_container: &Annotations,
    name: &str,
) -> Option<String> {
    let of_pod =
        |suffix: &str| of_pod.get(&format!("{kind}.resources.beta.kubernetes.io/{suffix}"));
    of_container
        .get(&format!("io.kubernetes.cri.{kind}-class"))
        .or_else(|| of_pod(&format!("container.{name}")))
        .or_else(|| of_pod("pod"))
        .filter(|class| !class.is_empty())
        .cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(all: &[(&str, &str)]) -> Annotations {
        all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_nearest_annotation_counts() {
        let pod = annotations(&[
            ("rdt.resources.beta.kubernetes.io/pod", "silver"),
            ("rdt.resources.beta.kubernetes.io/container.db", "gold"),
        ]);
        let own = annotations(&[("io.kubernetes.cri.rdt-class", "lead")]);
        let none = Annotations::new();
        assert_eq!(rdt(&pod, &none, "web").as_deref(), Some("silver"));
        assert_eq!(rdt(&pod, &none, "db").as_deref(), Some("gold"));
        assert_eq!(rdt(&pod, &own, "db").as_deref(), Some("lead"));
        assert_eq!(rdt(&none, &none, "db"), None);
        let pod = annotations(&[("blockio.resources.beta.kubernetes.io/pod", "fast")]);
        let error = refuse_block_io(&pod, &none, "db").unwrap_err();
        assert!(error.message().contains("\"fast\""), "{error}");
        assert!(refuse_block_io(&none, &none, "db").is_ok());
    }
}
