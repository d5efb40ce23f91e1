//! `$(NAME)` in commands, arguments and variables, as Kubernetes expands it. Pure.

/// The same, where every name must have a value. `Err`: the first that has none.
pub(super) fn expand_all<'v>(
    text: &str,
    value: impl Fn(&str) -> Option<&'v str>,
) -> Result<String, String> {
    let missing = std::cell::RefCell::new(None);
    let expanded = expand(text, |name| {
        let found = value(name);
        if found.is_none() {
            missing.borrow_mut().get_or_insert_with(|| name.to_owned());
        }
        found
    });
    missing.into_inner().map_or(Ok(expanded), Err)
}

/// Replaces `$(NAME)` by what `value` gives for it. A name without a value stays as it is
/// written, and `$$` is a plain dollar sign.
pub(super) fn expand<'v>(text: &str, value: impl Fn(&str) -> Option<&'v str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) =
            rest.strip_prefix('(').and_then(|inner| inner.split_once(')'))
        {
            match value(name) {
                Some(value) => out.push_str(value),
                None => out.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_names_are_replaced_and_the_rest_stays() {
        let value = |name: &str| (name == "A").then_some("1");
        for (text, expanded) in [
            ("$(A)-$(B)", "1-$(B)"),
            ("$$(A)", "$(A)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("$($(A))", "$($(A))"),
            ("", ""),
        ] {
            assert_eq!(expand(text, value), expanded, "{text}");
        }
        assert_eq!(expand_all("$(A)/$(B)/$(C)", value), Err("B".to_owned()));
        assert_eq!(expand_all("$(A)/x", value), Ok("1/x".to_owned()));
    }

    proptest! {
        #[test]
        fn text_without_dollars_is_untouched(text in "[^$]{0,40}") {
            prop_assert_eq!(expand(&text, |_| Some("x")), text);
        }

        #[test]
        fn nothing_panics(text in "[$()A-C é]{0,40}") {
            expand(&text, |name| (name == "A").then_some("1"));
        }
    }
}
