//! The last word of a session, on its error stream: how a command ended.

use bytes::Bytes;
use serde_json::json;

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The command's exit code.
    Exited(i32),
    /// It was not run, or its end was not seen.
    Failed(String),
}

/// What goes on the error stream: from version 4 of the protocol on a metav1.Status, before
/// that plain words, and nothing for success.
pub(super) fn text(outcome: &Outcome, protocol: u8) -> Option<Bytes> {
    let ended =
        |code: &i32| format!("command terminated with non-zero exit code: exit status {code}");
    if protocol < 4 {
        return match outcome {
            Outcome::Exited(0) => None,
            Outcome::Exited(code) => Some(ended(code).into()),
            Outcome::Failed(why) => Some(format!("Internal error occurred: {why}").into()),
        };
    }
    let status = match outcome {
        Outcome::Exited(0) => json!({"metadata": {}, "status": "Success"}),
        Outcome::Exited(code) => json!({
            "metadata": {},
            "status": "Failure",
            "message": ended(code),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Outcome::Failed(why) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("Internal error occurred: {why}"),
            "reason": "InternalError",
            "details": {"causes": [{"message": why}]},
            "code": 500,
        }),
    };
    Some(status.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_failure_and_trouble_are_told_as_each_version_has_it() {
        let word = |outcome: &Outcome, version| {
            text(outcome, version).map(|text| String::from_utf8(text.to_vec()).unwrap())
        };
        let failed = Outcome::Failed("no such file".into());
        assert_eq!(word(&Outcome::Exited(0), 3), None);
        assert_eq!(
            word(&Outcome::Exited(7), 1).unwrap(),
            "command terminated with non-zero exit code: exit status 7"
        );
        assert_eq!(word(&failed, 2).unwrap(), "Internal error occurred: no such file");
        assert_eq!(word(&Outcome::Exited(0), 4).unwrap(), r#"{"metadata":{},"status":"Success"}"#);
        let status: serde_json::Value =
            serde_json::from_str(&word(&Outcome::Exited(7), 5).unwrap()).unwrap();
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "7"}));
        let status: serde_json::Value = serde_json::from_str(&word(&failed, 4).unwrap()).unwrap();
        assert_eq!((&status["reason"], &status["code"]), (&json!("InternalError"), &json!(500)));
    }
}
