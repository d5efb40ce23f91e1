//! The page in a real browser.

use haled::proto::haled as wire;

use super::browser::{self, Browser};
use super::{House, LISTEN};
use crate::daemon::Daemon;

/// Where people find the pictures.
fn picture(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/status-page").join(name)
}

async fn apply(house: &House, manifest: &str) {
    let request = wire::ApplyRequest {
        manifest: manifest.as_bytes().to_vec().into(),
        source: "pod.yaml".into(),
        dry_run: false,
    };
    house.daemon.haled().await.apply(request).await.unwrap();
}

/// Pods of several kinds, for the pictures.
async fn company(house: &House) {
    apply(house, "{apiVersion: v1, kind: Pod, metadata: {name: report, namespace: jobs}, spec: {restartPolicy: Never, \
        containers: [{name: make, image: busybox, imagePullPolicy: Never, command: ['true']}]}}").await;
    apply(house, "{apiVersion: v1, kind: Pod, metadata: {name: shop, namespace: default}, spec: {containers: [\
        {name: front, image: busybox, imagePullPolicy: Never, command: [sleep, '600'], \
         readinessProbe: {exec: {command: ['true']}, periodMilliseconds: 200}, \
         livenessProbe: {exec: {command: ['true']}, periodMilliseconds: 300}}, \
        {name: cache, image: busybox, imagePullPolicy: Never, command: [sleep, '600'], \
         readinessProbe: {exec: {command: [sh, -c, 'echo the cache is cold; exit 1']}, periodMilliseconds: 200}}]}}").await;
    apply(house, "{apiVersion: v1, kind: Pod, metadata: {name: crash, namespace: default}, spec: {containers: [\
        {name: app, image: busybox, imagePullPolicy: Never, command: [sh, -c, 'exit 3']}]}}").await;
    apply(house, "{apiVersion: v1, kind: Pod, metadata: {name: typo, namespace: default}, spec: {containers: [\
        {name: app, image: registry.invalid/no/such/image-with-a-long-name, imagePullPolicy: Never, command: ['true']}]}}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_sees_a_pod_fail_and_heal_and_asks_nobody_else() {
    if !browser::there_is_one() {
        return;
    }
    let house = House::open("[healing]\nbackoff_initial = \"200ms\"\nbackoff_max = \"1m\"\n").await;
    house.run_web().await;
    let mut browser = Browser::start(&house.daemon).await;
    browser.go(&format!("http://{LISTEN}/")).await;
    browser.until("document.querySelectorAll('article').length === 1").await;
    browser.until("document.getElementById('live').textContent === 'Live'").await;
    browser.until("document.querySelector('.verdict').textContent === 'passes'").await;

    house.fail().await;
    browser.until("document.querySelector('.why')?.textContent === 'LivenessProbeFailed'").await;
    browser.until("document.querySelector('.verdict').textContent === 'passes'").await;
    browser.until("document.querySelectorAll('.strip .fail').length === 2").await;
    assert_eq!(browser.value("document.querySelectorAll('.strip .restart').length").await, 1);

    // By the keyboard alone: to the restarts, and open them. They stay open, and the focus
    // stays there, when the pod is drawn anew.
    browser.value("document.querySelector('#pods').focus()").await;
    browser.press("Tab", "").await;
    browser.until("document.activeElement.tagName === 'SUMMARY'").await;
    browser.press("Enter", "\r").await;
    browser.until("document.querySelector('details').open").await;
    house.fail().await;
    browser.until("document.querySelectorAll('.why').length === 2").await;
    assert_eq!(browser.value("document.querySelector('details').open").await, true);
    assert_eq!(browser.value("document.activeElement.tagName").await, "SUMMARY");

    company(&house).await;
    browser.until("document.querySelectorAll('article').length === 5").await;
    browser.until("[...document.querySelectorAll('.badge')].some(b => b.textContent === 'CrashLoopBackOff')").await;
    browser.until("document.querySelectorAll('.strip .pass').length > 10").await;
    for (name, width) in [("phone", 390), ("desktop", 1280)] {
        for (scheme, dark) in [("light", false), ("dark", true)] {
            browser.picture(&picture(&format!("{name}-{scheme}.png")), width, dark).await;
            let wide =
                "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
            assert_eq!(browser.value(wide).await, true, "{name} scrolls sideways");
        }
    }
    // The search shows what fits; a slash goes to it.
    browser.press("/", "/").await;
    browser.until("document.activeElement.id === 'filter'").await;
    browser.call("Input.insertText", serde_json::json!({ "text": "crash" })).await;
    browser
        .until("[...document.querySelectorAll('article')].filter(a => !a.hidden).length === 1")
        .await;

    let stray: Vec<_> = browser
        .requests()
        .into_iter()
        .filter(|url| !url.starts_with(&format!("http://{LISTEN}/")) && !url.starts_with("data:"))
        .filter(|url| url != "about:blank")
        .collect();
    assert_eq!(stray, Vec::<String>::new());
    assert!(browser.complaints().is_empty(), "{:?}", browser.complaints());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_view_needs_no_script_and_hostile_names_stay_text() {
    if !browser::there_is_one() {
        return;
    }
    let house = House::open("").await;
    let evil = "<img src=x onerror=document.title=1><script>document.title=2</script>";
    let mut sandbox = house.daemon.host_sandbox("evil");
    sandbox.metadata.as_mut().unwrap().name = evil.into();
    sandbox.metadata.as_mut().unwrap().namespace = evil.into();
    let id = house.daemon.run(&sandbox).await;
    house.daemon.run_container(&id, Daemon::host_container("app", "exec sleep 600")).await;
    let mut browser = Browser::start(&house.daemon).await;
    for scripts in [true, false] {
        let off = serde_json::json!({ "value": !scripts });
        browser.call("Emulation.setScriptExecutionDisabled", off).await;
        browser.go(&format!("http://{LISTEN}/?{scripts}")).await;
        if scripts {
            browser.until("document.getElementById('live').textContent === 'Live'").await;
        }
        let name = browser.value("document.querySelector('h2').textContent").await;
        assert!(name.as_str().unwrap().contains(evil), "{name}");
        assert_eq!(
            browser.value("document.querySelectorAll('main img, main script').length").await,
            0
        );
        let title = browser.value("document.title").await;
        assert!(title.as_str().unwrap().starts_with("haled on "), "{title}");
    }
    assert!(browser.complaints().is_empty(), "{:?}", browser.complaints());
}
