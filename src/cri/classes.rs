//! Classes of resources by annotation, as the CRI has no field for them: the kernel's resctrl
//! (Intel RDT and its like), and block I/O.

use std::collections::BTreeMap;

type Annotations = BTreeMap<String, String>;

/// The resctrl class of a container.
pub(super) fn rdt(of_pod: &Annotations, of_container: &Annotations, name: &str) -> Option<String> {
    class("rdt", of_pod, of_container, name)
}

/// The class of block I/O of a container.
pub(super) fn block_io(
    of_pod: &Annotations,
    of_container: &Annotations,
    name: &str,
) -> Option<String> {
    class("blockio", of_pod, of_container, name)
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
        assert_eq!(block_io(&pod, &none, "db").as_deref(), Some("fast"));
        let own = annotations(&[("io.kubernetes.cri.blockio-class", "slow")]);
        assert_eq!(block_io(&pod, &own, "db").as_deref(), Some("slow"));
        assert_eq!(block_io(&none, &none, "db"), None);
    }
}
