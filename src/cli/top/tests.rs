use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;

use super::model::Mode;
use super::*;
use crate::proto::haled::{Container, ProbeRun, ProbeStatus, Restart};

const SECOND: i64 = 1_000_000_000;
const NOW: i64 = 1_800_000_000 * SECOND;

fn container(name: &str, state: &str, reason: &str) -> Container {
    Container {
        name: name.into(),
        id: format!("id-{name}"),
        state: state.into(),
        reason: reason.into(),
        started_at: NOW - 90 * SECOND,
        ..Container::default()
    }
}

fn flapping() -> Container {
    let run = |at: i64| ProbeRun {
        kind: "liveness".into(),
        success: at % 7 > 1,
        at: NOW - (40 - at) * SECOND,
    };
    Container {
        restart_count: 2,
        probe_runs: (0..40).map(run).collect(),
        restarts: vec![Restart { at: NOW - 25 * SECOND, reason: "x".into(), took_ms: 9 }],
        probes: vec![ProbeStatus {
            kind: "liveness".into(),
            result: "Success".into(),
            next_run_at: NOW + 2_500_000_000,
            ..ProbeStatus::default()
        }],
        ..container("app", "Running", "Healthy")
    }
}

fn pod(name: &str, containers: Vec<Container>) -> Pod {
    Pod {
        namespace: "default".into(),
        name: name.into(),
        phase: "Running".into(),
        status: "Running".into(),
        origin: "manifest".into(),
        created_at: NOW - 7200 * SECOND,
        ips: vec!["10.88.0.2".into()],
        containers,
        ..Pod::default()
    }
}

fn model() -> Model {
    let mut model = Model::new(None, Sort::Name);
    let crash = Container { restart_count: 9, ..container("main", "Waiting", "CrashLoopBackOff") };
    model.take(News::Pods(vec![
        Pod { status: "CrashLoopBackOff".into(), ..pod("job", vec![crash]) },
        pod("web", vec![flapping(), container("side\u{1b}[31mcar", "Running", "")]),
    ]));
    let usage = ("id-app".to_owned(), (Some(250_000_000), Some(12 << 20)));
    model.take(News::Usage(vec![usage]));
    model
}

/// The screen as a terminal of this size shows it.
fn shown(model: &Model, width: u16, height: u16, colours: bool) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let lines = view::lines(model, width, height, NOW, colours);
    terminal.draw(|frame| frame.render_widget(Text::from(lines), frame.area())).unwrap();
    terminal
}

fn press(model: &mut Model, code: KeyCode) -> Action {
    model.key(KeyEvent::new(code, KeyModifiers::NONE), 20)
}

fn type_in(model: &mut Model, text: &str) {
    for c in text.chars() {
        assert_eq!(press(model, KeyCode::Char(c)), Action::None);
    }
}

#[test]
fn the_list_fits_eighty_columns() {
    insta::assert_snapshot!(shown(&model(), 80, 24, true).backend());
}

#[test]
fn a_pods_page_has_its_events_and_the_tail_of_its_log() {
    let mut model = model();
    for _ in 0..2 {
        press(&mut model, KeyCode::Down);
    }
    let opened = press(&mut model, KeyCode::Enter);
    let (namespace, pod, container) = ("default".into(), "web".into(), "app".into());
    assert_eq!(opened, Action::Open { namespace, pod, container });
    for n in 0..50 {
        let text = format!("app: Unhealthy liveness probe failed, number {n}");
        model.take(News::Event { at: NOW - (50 - n) * SECOND, text, warning: true });
        model.take(News::Log(format!("line {n} {}", "long ".repeat(30))));
    }
    insta::assert_snapshot!(shown(&model, 80, 24, true).backend());
    assert_eq!(press(&mut model, KeyCode::Esc), Action::Close);
}

#[test]
fn a_result_shows_without_colours_too() {
    let model = model();
    let (plain, coloured) = (shown(&model, 80, 24, false), shown(&model, 80, 24, true));
    let foreground = |terminal: &Terminal<TestBackend>| {
        let cells = terminal.backend().buffer().content().iter();
        cells.filter(|cell| cell.fg != Color::Reset).count()
    };
    assert_eq!(foreground(&plain), 0);
    assert!(foreground(&coloured) > 40);
    let text = |terminal: &Terminal<TestBackend>| terminal.backend().to_string();
    assert_eq!(text(&plain), text(&coloured));
    // Control characters of a pod's name are shown, not obeyed.
    assert!(!text(&plain).contains('\u{1b}'));
}

#[test]
fn what_has_not_changed_gives_the_same_lines() {
    let mut model = model();
    let before = view::lines(&model, 80, 24, NOW, true);
    model.take(News::Pods(model.all().to_vec()));
    assert_eq!(view::lines(&model, 80, 24, NOW, true), before);
    press(&mut model, KeyCode::Down);
    assert_ne!(view::lines(&model, 80, 24, NOW, true), before);
}

#[test]
fn no_size_is_too_small_and_the_selected_row_stays_in_sight() {
    let mut model = Model::new(Some("default".into()), Sort::Name);
    let pods = (0..200).map(|n| pod(&format!("pod-{n}"), vec![flapping()])).collect();
    model.take(News::Pods(pods));
    for (width, height) in [(1, 1), (39, 5), (40, 6), (80, 24), (300, 100), (65, 3)] {
        shown(&model, width, height, true);
    }
    press(&mut model, KeyCode::End);
    let screen = shown(&model, 80, 24, true).backend().to_string();
    assert!(screen.contains("pod-199") && screen.contains("liveness"), "{screen}");
    press(&mut model, KeyCode::Home);
    let screen = shown(&model, 80, 24, true).backend().to_string();
    assert!(screen.contains("pod-0 "), "{screen}");
}

#[test]
fn filter_and_sort() {
    let mut model = model();
    press(&mut model, KeyCode::Char('/'));
    type_in(&mut model, "crashq");
    assert!(model.pods().is_empty(), "q is a letter here");
    press(&mut model, KeyCode::Backspace);
    assert_eq!(model.pods().len(), 1);
    press(&mut model, KeyCode::Enter);
    assert_eq!(model.selected.as_ref().unwrap().pod, "job");
    press(&mut model, KeyCode::Esc);
    let first = |model: &Model| model.pods()[0].name.clone();
    for (key, expected) in [('c', "web"), ('t', "job"), ('m', "web"), ('n', "job")] {
        press(&mut model, KeyCode::Char(key));
        assert_eq!(first(&model), expected, "{key}");
    }
    assert_eq!(press(&mut model, KeyCode::Char('q')), Action::Quit);
}

#[test]
fn a_restart_is_asked_about_first() {
    let mut model = model();
    // What waits can't be restarted, and says so.
    press(&mut model, KeyCode::Down);
    press(&mut model, KeyCode::Char('r'));
    assert_eq!((model.told.as_str(), &model.mode), ("main does not run", &Mode::List));
    // A pod of two doesn't say which.
    press(&mut model, KeyCode::Down);
    press(&mut model, KeyCode::Char('r'));
    assert!(model.told.starts_with("choose one"), "{}", model.told);
    press(&mut model, KeyCode::Down);
    press(&mut model, KeyCode::Char('r'));
    assert!(shown(&model, 80, 24, true).backend().to_string().contains("restart default/web app?"));
    assert_eq!(press(&mut model, KeyCode::Char('n')), Action::None);
    press(&mut model, KeyCode::Char('r'));
    let asked = press(&mut model, KeyCode::Char('y'));
    assert_eq!(asked, Action::Restart { id: "id-app".into(), what: "default/web app".into() });
    assert_eq!(model.mode, Mode::List);
}

#[test]
fn a_narrow_screen_leaves_numbers_out_and_cuts_none() {
    let model = model();
    let heading = |width| {
        let screen = shown(&model, width, 12, false).backend().to_string();
        assert!(screen.lines().nth(2).is_some_and(|row| row.contains(" 120m")), "{screen}");
        let heading = screen.lines().nth(1).unwrap_or_default();
        heading.trim_matches('"').split_whitespace().skip(2).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(heading(61), "CPU MEMORY RESTARTS AGE");
    assert_eq!(heading(60), "MEMORY RESTARTS AGE");
    assert_eq!(heading(53), "RESTARTS AGE");
    assert_eq!(heading(45), "AGE");
    assert_eq!(heading(40), "AGE");
}

#[test]
fn before_the_first_answer_nothing_is_claimed() {
    let model = Model::new(Some("default".into()), Sort::Name);
    let screen = shown(&model, 80, 6, false).backend().to_string();
    assert!(screen.contains("haled: asking in default") && !screen.contains("0 pods"), "{screen}");
}

#[test]
fn a_table_for_scripts() {
    let model = model();
    let table = |kind, namespaces, sort| {
        Shown { kind, namespaces, heading: true }
            .table(&rows(model.all(), &model.usage, kind, sort), NOW)
    };
    insta::assert_snapshot!(format!(
        "{}\n{}",
        table(TopKind::Pods, false, Sort::Memory),
        table(TopKind::Containers, true, Sort::Restarts)
    ));
    let one = &rows(model.all(), &model.usage, TopKind::Containers, Sort::Cpu)[0];
    assert_eq!(
        one.object(),
        json!({
            "namespace": "default", "pod": "web", "container": "app", "cpuNanocores": 250_000_000,
            "memoryBytes": 12 << 20, "restarts": 2, "since": "2027-01-15T07:58:30Z",
        })
    );
}
