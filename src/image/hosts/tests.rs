use proptest::prelude::*;

use super::*;

fn bases(text: &str, domain: &str) -> Vec<String> {
    let found = parse(text, domain, Path::new("/etc/x/hosts.toml")).unwrap();
    found.into_iter().map(|e| e.base).collect()
}

#[test]
fn mirrors_come_in_the_files_order_and_then_the_server() {
    let text = "server = \"https://registry-1.docker.io\"\n\
        [host.\"http://zzz:5000\"]\ncapabilities = [\"pull\"]\n\
        [host.\"https://aaa/some/path\"]\n\
        [host.\"https://mmm/v2/proxy\"]\noverride_path = true\nskip_verify = true\nca = \"a.crt\"\n";
    let found = parse(text, "docker.io", Path::new("/etc/x/hosts.toml")).unwrap();
    let bases: Vec<&str> = found.iter().map(|e| &*e.base).collect();
    assert_eq!(
        bases,
        [
            "http://zzz:5000/v2",
            "https://aaa/some/path/v2",
            "https://mmm/v2/proxy",
            "https://registry-1.docker.io/v2"
        ]
    );
    assert!(found[0].pulls && !found[0].resolves && found[0].mirror && found[1].resolves);
    assert!(found[2].skip_verify && found[2].authorities == [PathBuf::from("/etc/x/a.crt")]);
    assert!(!found[3].mirror);
}

#[test]
fn what_else_containerd_takes() {
    let of = |options: &str| {
        let text = format!("[host.\"http://a\"]\n{options}\n");
        parse(&text, "quay.io", Path::new("/etc/x/hosts.toml")).unwrap().remove(0)
    };
    let both = |endpoint: Endpoint| (endpoint.pulls, endpoint.resolves);
    assert_eq!(both(of("capabilities = []")), (true, true));
    assert_eq!(both(of("capabilities = [\"Pull\"]")), (true, false));
    let files = |certificate: &str, key: Option<&str>| ClientFiles {
        certificate: certificate.into(),
        key: key.map(PathBuf::from),
    };
    let (one, two) = (files("/etc/x/one.pem", None), files("/two.pem", None));
    let (a, b) = (files("/etc/x/a.crt", Some("/a.key")), files("/b.crt", Some("/etc/x/b.key")));
    for (client, expected) in [
        ("\"one.pem\"", vec![one.clone()]),
        ("[\"one.pem\", \"/two.pem\"]", vec![one.clone(), two]),
        ("[[\"a.crt\", \"/a.key\"]]", vec![a.clone()]),
        ("[[\"a.crt\", \"/a.key\"], [\"/b.crt\", \"b.key\"], \"one.pem\"]", vec![a, b, one]),
        ("[]", vec![]),
    ] {
        assert_eq!(of(&format!("client = {client}")).clients, expected, "{client}");
    }
    for (text, millis) in [("5s", 5000), ("1m1.5s", 61_500), ("300ms", 300)] {
        let found = of(&format!("dial_timeout = \"{text}\"")).dial_timeout;
        assert_eq!(found, Some(Duration::from_millis(millis)));
    }
    let top = "dial_timeout = \"5s\"\n[header]\na = \"b\"\n";
    let own = parse(top, "quay.io", Path::new("/etc/x/hosts.toml")).unwrap().remove(0);
    assert_eq!(own.dial_timeout, Some(Duration::from_secs(5)));
    assert_eq!(own.headers, [("a".to_owned(), "b".to_owned())]);
    for bad in ["", "s", "1", "1x", "-1s", "..s", "1e9999h"] {
        assert_eq!(duration(bad), None, "{bad}");
    }
}

#[test]
fn without_a_server_the_registry_itself_is_last() {
    assert_eq!(bases("[host.\"http://m\"]", "quay.io"), ["http://m/v2", "https://quay.io/v2"]);
    assert_eq!(bases("", "docker.io"), ["https://registry-1.docker.io/v2"]);
    assert_eq!(bases("server = \"http://q:1\"", "q:1"), ["http://q:1/v2"]);
    assert_eq!(bases("server = \"http://q:1\"\n[host.\"http://q:1\"]", "q:1"), ["http://q:1/v2"]);
}

#[test]
fn loopback_is_plain_first() {
    for domain in ["localhost:5000", "127.0.0.1:80", "127.1.2.3:9", "[::1]:5000"] {
        assert_eq!(upstreams(domain)[0].base, format!("http://{domain}/v2"));
    }
    assert_eq!(upstreams("localhost:443").len(), 1);
    assert!(!is_loopback("localhost.example.org") && !is_loopback("128.0.0.1:80"));
}

#[test]
fn a_mistake_names_the_file_and_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("quay.io/hosts.toml");
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    for (text, expected) in [
        ("server = ", "expected"),
        ("serve = \"x\"", "\"serve\" is not understood"),
        ("server = 3", "\"server\" is not understood"),
        ("[host.\"ftp://a\"]", "http:// or https://"),
        (
            "[host.\"http://a\"]\nskip_verify = \"yes\"",
            "host.\"http://a\".skip_verify: true or false",
        ),
        ("[host.\"http://a\"]\ncapabilities = [\"fly\"]", "\"fly\" is not pull"),
        ("[host.\"http://a\"]\nclients = \"x\"", "clients: not understood"),
        ("[host.\"http://a\"]\nclient = [[\"a\", \"b\", \"c\"]]", "client: a certificate"),
        ("[host.\"http://a\"]\ndial_timeout = \"5\"", "dial_timeout: a time like"),
        ("[host.\"http://u:p@a\"]", "may have a host"),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = endpoints(&[dir.path().to_owned()], "quay.io").unwrap_err().to_string();
        assert!(
            error.contains(file.to_str().unwrap()) && error.contains(expected),
            "{text}: {error}"
        );
    }
}

#[test]
fn the_hosts_own_directory_goes_before_the_default() {
    let dir = tempfile::tempdir().unwrap();
    for (name, mirror) in
        [("_default", "http://d"), ("a:1", "http://colon"), ("b_2_", "http://under")]
    {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        std::fs::write(dir.path().join(name).join("hosts.toml"), format!("[host.\"{mirror}\"]"))
            .unwrap();
    }
    let dirs = ["/nonexistent".into(), dir.path().to_owned()];
    let first = |domain| endpoints(&dirs, domain).unwrap()[0].base.clone();
    assert_eq!(
        [first("x"), first("a:1"), first("b:2")],
        ["http://d/v2", "http://colon/v2", "http://under/v2"]
    );
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,80}", key in "[a-z_]{1,12}", value in "\\PC{0,12}") {
        let file = Path::new("/x/hosts.toml");
        drop(parse(&text, "quay.io", file));
        drop(parse(&format!("[host.\"http://a\"]\n{key} = {value:?}\n"), "quay.io", file));
    }
}
