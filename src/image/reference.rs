//! Image references: parsed and normalized as Docker, containerd and Kubernetes do.
//!
//! `busybox` is `docker.io/library/busybox:latest`. With a tag and a digest the digest
//! decides, and the tag is dropped (containerd does the same).

use std::fmt;

use super::Error;
use super::digest::Digest;

/// Longest repository name with its registry (the distribution project's limit).
const MAX_NAME: usize = 255;
/// Longest tag.
const MAX_TAG: usize = 128;
const DOCKER_HUB: &str = "docker.io";

/// What to take from the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Version {
    /// A name that may move.
    Tag(String),
    /// Content.
    Digest(Digest),
}

/// A normalized reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    /// `docker.io`, `localhost:5000`, `[::1]:5000`.
    pub(super) domain: String,
    /// `library/busybox`.
    pub(super) repository: String,
    /// Which image of the repository.
    pub(super) version: Version,
}

impl Reference {
    /// Parses and normalizes.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        parse(text).map_err(|why| Error::BadReference { reference: text.to_owned(), why })
    }

    /// `registry/repository`.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.domain, self.repository)
    }

    /// The name of some content of this repository.
    pub(super) fn with_digest(&self, digest: &Digest) -> Self {
        Self { version: Version::Digest(digest.clone()), ..self.clone() }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Version::Tag(tag) => write!(f, "{}/{}:{tag}", self.domain, self.repository),
            Version::Digest(digest) => write!(f, "{}/{}@{digest}", self.domain, self.repository),
        }
    }
}

fn parse(text: &str) -> Result<Reference, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(Digest::parse(digest)?)),
        None => (text, None),
    };
    // A colon after the last slash is a tag's; one before it is a port's.
    let (name, tag) = match rest.rfind(':') {
        Some(at) if !rest[at..].contains('/') && !rest[at..].contains(']') => {
            (&rest[..at], Some(check_tag(&rest[at + 1..])?))
        }
        _ => (rest, None),
    };
    let (domain, repository) = split_domain(name);
    check_domain(&domain)?;
    check_repository(&repository)?;
    if domain.len() + 1 + repository.len() > MAX_NAME {
        return Err(format!("its name is longer than {MAX_NAME} bytes"));
    }
    let version = match (digest, tag) {
        (Some(digest), _) => Version::Digest(digest),
        (None, Some(tag)) => Version::Tag(tag.to_owned()),
        (None, None) => Version::Tag("latest".to_owned()),
    };
    Ok(Reference { domain, repository, version })
}

/// The first part is a registry if it could not be a Docker Hub user's name.
fn split_domain(name: &str) -> (String, String) {
    let (domain, rest) = match name.split_once('/') {
        Some((first, rest)) if looks_like_host(first) => (first, rest),
        _ => (DOCKER_HUB, name),
    };
    let domain = if domain == "index.docker.io" { DOCKER_HUB } else { domain };
    if domain == DOCKER_HUB && !rest.contains('/') {
        (domain.to_owned(), format!("library/{rest}"))
    } else {
        (domain.to_owned(), rest.to_owned())
    }
}

fn looks_like_host(part: &str) -> bool {
    part.contains(['.', ':', '['])
        || part == "localhost"
        || part.bytes().any(|b| b.is_ascii_uppercase())
}

fn check_tag(tag: &str) -> Result<&str, String> {
    let first = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let rest = |b: u8| first(b) || b == b'.' || b == b'-';
    if tag.is_empty() || !first(tag.as_bytes()[0]) || !tag.bytes().all(rest) {
        Err(format!("the tag \"{tag}\" may have letters, digits, \"_\", \".\" and \"-\" only"))
    } else if tag.len() > MAX_TAG {
        Err(format!("the tag is longer than {MAX_TAG} bytes"))
    } else {
        Ok(tag)
    }
}

fn check_domain(domain: &str) -> Result<(), String> {
    let bad = || format!("\"{domain}\" is not a registry's host[:port]");
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or_else(bad)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
            ("", port.strip_prefix(':').or(port.is_empty().then_some("0")).ok_or_else(bad)?)
        }
        None => domain.split_once(':').unwrap_or((domain, "0")),
    };
    port.parse::<u16>().map_err(|_| bad())?;
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if domain.starts_with('[') || host.split('.').all(label) { Ok(()) } else { Err(bad()) }
}

fn check_repository(repository: &str) -> Result<(), String> {
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(format!("the repository \"{repository}\" must be in lower case"));
    }
    if repository.split('/').all(is_path_component) {
        Ok(())
    } else {
        Err(format!("\"{repository}\" is not a repository's name"))
    }
}

/// Letters and digits, joined by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(part: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    alphanumeric(first)
        && alphanumeric(last)
        && bytes.split(|&b| alphanumeric(b)).all(|between| {
            matches!(between, b"" | b"." | b"_" | b"__") || between.iter().all(|&b| b == b'-')
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn normalized_as_other_runtimes_do() {
        let digest = format!("busybox:1@sha256:{HEX}");
        let by_digest = format!("docker.io/library/busybox@sha256:{HEX}");
        for (given, normal) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("user/app", "docker.io/user/app:latest"),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            ("quay.io/a/b/c:v1", "quay.io/a/b/c:v1"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            ("localhost:5000/app:5000", "localhost:5000/app:5000"),
            ("[::1]:5000/app:x", "[::1]:5000/app:x"),
            ("127.0.0.1:5000/a__b/c-d.e", "127.0.0.1:5000/a__b/c-d.e:latest"),
            (&digest, &by_digest),
        ] {
            assert_eq!(Reference::parse(given).unwrap().to_string(), normal, "{given}");
        }
    }

    #[test]
    fn refused_with_a_reason() {
        for bad in [
            "",
            ":",
            "@",
            "a:",
            "a@",
            "a@sha256:12",
            "/a",
            "a/",
            "a//b",
            "Upper/Case/x",
            "Busybox",
            "a:b c",
            "a..b",
            "host:port/a",
            "host:99999/a",
            "-a.b/c",
            "a___b",
            "../../etc/passwd",
            "a b",
            "[::1/x",
            "a:\u{e9}",
        ] {
            assert!(matches!(Reference::parse(bad), Err(Error::BadReference { .. })), "{bad}");
        }
        assert!(Reference::parse(&"a".repeat(300)).is_err());
        assert!(Reference::parse(&format!("a:{}", "t".repeat(129))).is_err());
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer_and_a_normal_form_stays(text in "\\PC{0,60}") {
            if let Ok(reference) = Reference::parse(&text) {
                let normal = reference.to_string();
                prop_assert_eq!(Reference::parse(&normal).unwrap().to_string(), normal);
            }
        }

        #[test]
        fn made_of_good_parts_it_parses(
            host in "([a-z][a-z0-9]{0,5}\\.){1,3}[a-z]{2,3}(:[1-9][0-9]{0,3})?",
            path in "[a-z0-9]{1,6}([._-][a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,6}){0,3}",
            tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}",
        ) {
            let text = format!("{host}/{path}:{tag}");
            let parsed = Reference::parse(&text).unwrap();
            prop_assert_eq!(parsed.to_string(), text);
            prop_assert_eq!(parsed.domain, host);
        }
    }
}
