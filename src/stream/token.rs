//! What a URL's token stands for, until it is used or too old.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a token is good.
const LIFE: Duration = Duration::from_mins(1);
/// Tokens that wait to be used; over this a request is refused.
const MAX: usize = 1000;

/// Single-use tokens and what each stands for.
#[derive(Debug)]
pub(super) struct Tokens<T>(HashMap<String, (Instant, T)>);

impl<T> Default for Tokens<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Tokens<T> {
    /// A token for `value`; `None`: too many wait already.
    pub(super) fn issue(&mut self, value: T, now: Instant) -> Option<String> {
        self.0.retain(|_, (issued, _)| now.duration_since(*issued) < LIFE);
        if self.0.len() >= MAX {
            return None;
        }
        let mut random = [0; 16];
        getrandom::fill(&mut random).expect("the kernel gives random bytes once it has booted");
        let token = format!("{:032x}", u128::from_be_bytes(random));
        self.0.insert(token.clone(), (now, value));
        Some(token)
    }

    /// What a token stands for, once.
    pub(super) fn redeem(&mut self, token: &str, now: Instant) -> Option<T> {
        let (issued, value) = self.0.remove(token)?;
        (now.duration_since(issued) < LIFE).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_once_and_for_a_minute() {
        let (mut tokens, start) = (Tokens::default(), Instant::now());
        let one = tokens.issue(1, start).unwrap();
        let two = tokens.issue(2, start).unwrap();
        assert_ne!(one, two);
        assert_eq!(one.len(), 32);
        assert_eq!(tokens.redeem(&one, start), Some(1));
        assert_eq!(tokens.redeem(&one, start), None);
        assert_eq!(tokens.redeem(&two, start + LIFE), None);
        assert_eq!(tokens.redeem("", start), None);
    }

    #[test]
    fn there_are_only_so_many() {
        let (mut tokens, start) = (Tokens::default(), Instant::now());
        for _ in 0..MAX {
            tokens.issue((), start).unwrap();
        }
        assert_eq!(tokens.issue((), start), None);
        assert!(tokens.issue((), start + LIFE).is_some());
        assert_eq!(tokens.0.len(), 1);
    }
}
