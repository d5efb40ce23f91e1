//! Names of slices (systemd.slice(5)).

/// A slice: its name says which slices it is in, so it is one place in the cgroup tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice(String);

const SUFFIX: &str = ".slice";
/// The longest name of a unit, in bytes (systemd.unit(5)).
const MAX_NAME: usize = 255;

impl Slice {
    /// `a-b.slice`, or its path in the cgroup tree, `/a.slice/a-b.slice`, as kubelets give it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let name = text.rsplit('/').next().unwrap_or_default();
        let Some(parts) = name.strip_suffix(SUFFIX) else {
            return Err(format!("\"{text}\" is no slice: a-b.slice is one"));
        };
        let good = |c: char| c.is_ascii_alphanumeric() || ":_.\\@".contains(c);
        let part = |part: &str| !part.is_empty() && part.chars().all(good);
        if name.len() > MAX_NAME || !(parts == "-" || parts.split('-').all(part)) {
            return Err(format!(
                "\"{text}\" is no slice: its name is of letters, digits and :_.\\@ with single \
                 dashes between, in at most {MAX_NAME} bytes"
            ));
        }
        let slice = Self(name.to_owned());
        if name != text && slice.cgroup() != text {
            let right = slice.cgroup();
            return Err(format!("\"{text}\" is no slice: {name} is at \"{right}\""));
        }
        Ok(slice)
    }

    /// Whether a text was meant to be one.
    pub fn is_meant(text: &str) -> bool {
        text.ends_with(SUFFIX)
    }

    /// `a-b.slice`.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// `/a.slice/a-b.slice`; of `-.slice`, the root, nothing.
    pub fn cgroup(&self) -> String {
        let parts = self.0.strip_suffix(SUFFIX).unwrap_or(&self.0);
        let ends = parts.match_indices('-').map(|(at, _)| at).chain([parts.len()]);
        let root = parts == "-";
        ends.filter(|_| !root).flat_map(|end| ["/", &parts[..end], SUFFIX]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_in_those_that_its_name_begins_with() {
        for (name, cgroup) in [
            ("system.slice", "/system.slice"),
            ("-.slice", ""),
            ("kubepods-burstable.slice", "/kubepods.slice/kubepods-burstable.slice"),
            (
                "kubepods-besteffort-pod1_2.slice",
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1_2.slice",
            ),
        ] {
            let slice = Slice::parse(name).unwrap();
            assert_eq!((slice.name(), slice.cgroup().as_str()), (name, cgroup));
            if !cgroup.is_empty() {
                assert_eq!(Slice::parse(cgroup).unwrap(), slice);
            }
        }
    }

    #[test]
    fn what_is_no_slice_is_refused_with_its_reason() {
        for (text, why) in [
            ("", "a-b.slice is one"),
            ("/kubepods/pod1", "a-b.slice is one"),
            ("x.scope", "a-b.slice is one"),
            (".slice", "single dashes"),
            ("-a.slice", "single dashes"),
            ("a-.slice", "single dashes"),
            ("a--b.slice", "single dashes"),
            ("a b.slice", "single dashes"),
            ("/a.slice/b.slice", "b.slice is at \"/b.slice\""),
            ("/a/a-b.slice", "a-b.slice is at \"/a.slice/a-b.slice\""),
            ("/../a.slice", "a.slice is at \"/a.slice\""),
            (&format!("{}.slice", "a".repeat(250)), "255 bytes"),
        ] {
            let refused = Slice::parse(text).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
