//! `WWW-Authenticate` of a registry, and the credentials that answer it.

use super::Auth;

/// Credentials in the form they are used.
#[derive(Clone)]
pub(super) enum Credentials {
    /// Nobody in particular.
    Anonymous,
    /// The value of an Authorization header, `Basic …`.
    Basic(String),
    /// An OAuth2 refresh token, to be changed into an access token.
    Refresh(String),
    /// A bearer token, sent as it is.
    Bearer(String),
}

impl From<Option<Auth>> for Credentials {
    fn from(auth: Option<Auth>) -> Self {
        let Some(auth) = auth else { return Self::Anonymous };
        // Docker's credential helpers give a name beside a refresh token, and no password.
        let by_password = !auth.password.is_empty() || auth.identity_token.is_empty();
        if !auth.username.is_empty() && by_password {
            let pair = format!("{}:{}", auth.username, auth.password);
            Self::Basic(format!("Basic {}", base64(pair.as_bytes())))
        } else if !auth.identity_token.is_empty() {
            Self::Refresh(auth.identity_token)
        } else if !auth.auth.is_empty() {
            // Docker's configuration may pad or wrap it.
            let clean: String = auth.auth.chars().filter(char::is_ascii_graphic).collect();
            Self::Basic(format!("Basic {clean}"))
        } else if !auth.registry_token.is_empty() {
            Self::Bearer(auth.registry_token)
        } else {
            Self::Anonymous
        }
    }
}

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// The best of a header's challenges: bearer before basic.
pub(super) fn parse(header: &str) -> Option<Challenge> {
    let mut best = None;
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        let (scheme, after) = rest.split_at(rest.find([' ', ',']).unwrap_or(rest.len()));
        let (parameters, after) = parameters(after);
        let get = |name: &str| {
            parameters.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone())
        };
        if scheme.eq_ignore_ascii_case("bearer") {
            if let Some(realm) = get("realm") {
                return Some(Challenge::Bearer {
                    realm,
                    service: get("service"),
                    scope: get("scope"),
                });
            }
        } else if scheme.eq_ignore_ascii_case("basic") {
            best = Some(Challenge::Basic);
        }
        rest = after.trim_start_matches([' ', ',']);
    }
    best
}

/// `a="b", c=d` up to the next scheme.
fn parameters(mut rest: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    loop {
        let start = rest.trim_start_matches([' ', ',']);
        let name_end = start.find(['=', ' ', ',']).unwrap_or(start.len());
        let Some(value) = start[name_end..].trim_start().strip_prefix('=') else {
            return (found, start);
        };
        let value = value.trim_start();
        let (text, after) = if let Some(quoted) = value.strip_prefix('"') {
            unquote(quoted)
        } else {
            let (text, after) = value.split_at(value.find([',', ' ']).unwrap_or(value.len()));
            (text.to_owned(), after)
        };
        found.push((start[..name_end].to_owned(), text));
        rest = after;
    }
}

fn unquote(text: &str) -> (String, &str) {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (out, &text[at + 1..]),
            '\\' => out.extend(chars.next().map(|(_, c)| c)),
            c => out.push(c),
        }
    }
    (out, "")
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .enumerate()
            .fold(0u32, |word, (i, &b)| word | u32::from(b) << (16 - 8 * i));
        for digit in 0..4 {
            let value = (word >> (18 - 6 * digit)) & 0x3f;
            out.push(if digit <= chunk.len() { ALPHABET[value as usize] as char } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn base64_as_rfc_4648_has_it() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("user:p\u{e4}ss", "dXNlcjpww6Rzcw=="),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn challenges_of_real_registries() {
        let hub = "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:library/busybox:pull,push\"";
        let Some(Challenge::Bearer { realm, service, scope }) = parse(hub) else { panic!("none") };
        assert_eq!(realm, "https://auth.docker.io/token");
        assert_eq!(service.as_deref(), Some("registry.docker.io"));
        assert_eq!(scope.as_deref(), Some("repository:library/busybox:pull,push"));
        assert_eq!(parse("Basic realm=\"basic-realm\""), Some(Challenge::Basic));
        let both = parse("Basic realm=\"a, b\", Bearer realm=\"https://x/\\\"t\"");
        assert!(matches!(both, Some(Challenge::Bearer { realm, .. }) if realm == "https://x/\"t"));
        let spaced = parse("Bearer realm = \"https://x/t\" , service= s");
        assert!(matches!(spaced, Some(Challenge::Bearer { realm, service: Some(service), .. })
                if realm == "https://x/t" && service == "s"));
        assert_eq!(parse("Negotiate"), None);
        assert_eq!(parse("Bearer"), None);
        assert_eq!(parse(""), None);
    }

    proptest! {
        #[test]
        fn any_header_ends(text in "[ -~]{0,60}") {
            drop(parse(&text));
        }
    }
}
