//! A container's own restart policy and its rules by exit code.

use std::time::Duration;

use haled::health::{ContainerPolicy, RestartPolicy, RestartRule, RuleAction};

use super::house::{House, end, policy, runs};

fn own(restart: RestartPolicy, codes: &[i32], action: RuleAction) -> ContainerPolicy {
    let rule = RestartRule { within: true, codes: codes.to_vec(), action };
    ContainerPolicy { restart: Some(restart), rules: vec![rule], ..ContainerPolicy::default() }
}

#[tokio::test]
async fn rules_go_before_the_containers_policy_and_that_before_the_pods() {
    let house = House::open().await;
    let policy =
        policy(RestartPolicy::Never, "app", own(RestartPolicy::Never, &[42], RuleAction::Restart));
    let pod = house.run(policy).await;
    // 42 the first time, then 1.
    house.start(&pod, "app", "test -e /out/ran && exit 1; touch /out/ran; exit 42").await;
    house.start(&pod, "other", "exit 42").await;
    let app = house.when(&pod, "app", |app| app.config.attempt == 1 && end(app).is_some()).await;
    assert_eq!(end(&app), Some((1, "Error")));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let view = house.pods.pod(pod.as_str()).unwrap();
    assert_eq!(view.newest("app").unwrap().config.attempt, 1);
    assert_eq!(view.newest("other").unwrap().config.attempt, 0);
    house.close(&pod).await;
}

#[tokio::test]
async fn a_rule_may_have_every_container_start_again() {
    let house = House::open().await;
    let policy = policy(
        RestartPolicy::Never,
        "app",
        own(RestartPolicy::Never, &[44], RuleAction::RestartAllContainers),
    );
    let pod = house.run(policy).await;
    let app = "test -e /out/ran && exec sleep 600; touch /out/ran; sleep 1; exit 44";
    let all = [("init", "exit 0"), ("side", "exec sleep 600"), ("app", app)];
    for (name, script) in all {
        house.start(&pod, name, script).await;
    }
    let side = house.when(&pod, "side", |side| side.past).await;
    assert_eq!(end(&side).unwrap().1, "RestartAllContainers");
    let view = house.pods.pod(pod.as_str()).unwrap();
    for (name, _) in all {
        assert!(view.newest(name).is_none(), "{name} still counts");
    }
    // The controller begins anew, as with a new pod: those are the next attempts.
    for (name, script) in all {
        house.start(&pod, name, script).await;
        let next = house.when(&pod, name, |next| next.config.attempt == 1).await;
        assert!(!next.past);
        assert_eq!(next.config.log_path.to_str().unwrap(), format!("{name}/1.log"));
    }
    house.when(&pod, "app", runs).await;
    house.when(&pod, "side", runs).await;
    house.close(&pod).await;
}
