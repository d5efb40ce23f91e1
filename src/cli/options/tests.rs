//! The command line as it is read.

use std::ffi::OsString;

use clap::{CommandFactory as _, Parser as _};

use super::{Command, Options, Span};

#[test]
fn the_command_line_is_sound() {
    Options::command().debug_assert();
    let parse = |line: &str| Options::try_parse_from(line.split(' '));
    for good in [
        "halectl apply -f - -f b.yaml",
        "halectl get pods",
        "halectl get po web -o json -n kube-system",
        "halectl get pod -A -o wide",
        "halectl describe pod web",
        "halectl logs -f --tail 5 -c app web",
        "halectl logs -p web",
        "halectl exec web -c app -- sh -c true",
        "halectl delete pod a b --grace-period 0",
        "halectl delete -f p.yaml",
        "halectl apply -f dir -R --dry-run",
        "halectl apply --dry-run=client -f p.yaml",
        "halectl delete pods --all --wait=false",
        "halectl delete -f dir -R --timeout 5m",
        "halectl events -w --time offset web",
        "halectl image ls",
        "halectl image import --name a:b rootfs.tar",
        "halectl --address /run/h.sock version -o json",
        "halectl get pods a kube-system/b pod/c",
        "halectl get pod/web",
        "halectl get pods -l a=b,c!=d -A -w",
        "halectl describe pods -l a",
        "halectl health a b",
        "halectl wait pods -l a=b --for=jsonpath={.status.phase}=Running --timeout=1m30s",
        "halectl logs -l a=b --all-containers --since 5m --tail -1",
        "halectl logs a b -f --since-time 2026-01-02T03:04:05Z --prefix",
        "halectl exec -it web -- sh",
        "halectl exec web --timeout 3 -- sh",
        "halectl exec web ls",
        "halectl images",
        "halectl image ls busybox --no-headers",
        "halectl version --client",
        "halectl get pods --request-timeout 5s",
        "halectl attach -it web --detach-keys ctrl-a,d",
        "halectl port-forward web 80 8080:80 :http --address 127.0.0.1,::1",
        "halectl port-forward web 80 --socket /run/h.sock",
        "halectl cp web:/a b -c app",
        "halectl delete pods --all -A",
        "halectl delete pod web --force --grace-period=0",
        "halectl delete pod web --now",
        "halectl get pods --no-headers --show-labels",
        "halectl explain",
        "halectl delete pods -l a=b --ignore-not-found",
        "halectl completion zsh",
        "halectl man /tmp",
        "halectl config",
    ] {
        parse(good).unwrap_or_else(|error| panic!("{good}: {error}"));
    }
    for bad in [
        "halectl",
        "halectl apply",
        "halectl apply -R",
        "halectl delete pod a -R",
        "halectl get",
        "halectl get services",
        "halectl get pods web -A",
        "halectl exec web",
        "halectl exec -i --timeout 1 web -- ls",
        "halectl get pods -l a=(",
        "halectl get pods web -l a=b",
        "halectl logs",
        "halectl logs web --since yesterday",
        "halectl logs web -c a --all-containers",
        "halectl wait pods web --for=jsonpath={.status",
        "halectl wait pods web --timeout=-x",
        "halectl wait pods web --all",
        "halectl get pods -o jsonpath={..name}",
        "halectl get pods -o jsonpath",
        "halectl get pods -o wide=1",
        "halectl get pods web --field-selector status.phase=Running",
        "halectl events web --for pod/web",
        "halectl events --types Error",
        "halectl top nodes",
        "halectl top pods --sort-by size",
        "halectl port-forward web",
        "halectl port-forward web 80 --address somewhere",
        "halectl cp web:/a",
        "halectl delete pods --all a",
        "halectl delete pod a --now --force",
        "halectl completion tcsh",
        "halectl delete",
        "halectl delete pod a -f b",
        "halectl logs -f -p web",
        "halectl image rm",
        "halectl image export",
        "halectl image inspect -o text a",
        "halectl image pull busybox --authfile a --creds b:c",
        "halectl --address tcp://x version",
    ] {
        let error = parse(bad).expect_err(bad);
        assert_eq!(error.exit_code(), 2, "{bad}");
    }
    let Command::Exec(exec) = parse("halectl exec web -- ls -l --color").unwrap().command else {
        panic!()
    };
    assert_eq!(exec.command, ["ls", "-l", "--color"]);
}

#[test]
fn every_command_has_an_example_and_a_word_on_every_option() {
    fn check(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        let told = command.get_about().is_some();
        assert!(told, "{path} has no description");
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            assert!(argument.get_help().is_some(), "{path}: {}", argument.get_id());
        }
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let example = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(example.contains("halectl "), "{path} {} has no example", sub.get_name());
            check(sub, &path);
        }
    }
    check(&Options::command(), "");
}

#[test]
fn a_command_of_another_tool_is_told_by_its_name_here() {
    let parse = |line: &str| {
        let line: Vec<_> = line.split(' ').map(OsString::from).collect();
        super::hinted(Options::try_parse_from(&line).unwrap_err(), &line)
    };
    for (elsewhere, here) in super::elsewhere::COMMANDS {
        let told = parse(&format!("halectl {elsewhere} x")).to_string();
        assert!(told.contains(&format!("'{here}'")), "{told}");
        let line = format!("halectl {here} --help");
        let help = Options::try_parse_from(line.split(' ')).unwrap_err();
        assert_eq!(help.kind(), clap::error::ErrorKind::DisplayHelp, "{line}: {help}");
    }
    assert!(parse("halectl lgos").to_string().contains("'logs'"));
    assert!(parse("halectl image delete x").to_string().contains("tip: halectl image rm"));
    assert!(parse("halectl edit x").to_string().contains("tip: edit the manifest's file"));
    assert!(parse("halectl exec -u root web -- id").to_string().contains("tip: it runs as"));
    assert!(!parse("halectl get pods --nosuch x").to_string().contains("tip"));
}

#[test]
fn times_are_seconds_or_have_units() {
    let read = |text: &str| text.parse::<Span>().map(|span| span.0.as_millis());
    assert_eq!(read("90"), Ok(90_000));
    assert_eq!(read("1d1h1m1s1ms"), Ok(90_061_001));
    for bad in ["", "m", "1.5s", "-1", "1y", "99999999999999999999s", "18446744073709551615d"] {
        read(bad).expect_err(bad);
    }
}
