//! What the screen knows, and what keys do to it. Pure.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};

use clap::ValueEnum;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::Usage;
use super::follow::News;
use crate::cli::status;
use crate::proto::haled::{Container, Pod};

/// Lines of a log and events kept of the pod whose page is open.
const KEPT: usize = 200;
/// Characters of a filter.
const FILTER_LIMIT: usize = 60;

/// What a key asks of the world.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    None,
    Quit,
    /// A pod's page: its events, and the log of a container.
    Open {
        namespace: String,
        pod: String,
        container: String,
    },
    Close,
    Restart {
        id: String,
        what: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Sort {
    Name,
    Cpu,
    Memory,
    Restarts,
    /// The newest first.
    Age,
}

impl Sort {
    /// What weighs more comes first; what weighs the same stays by its name.
    pub(super) fn weight(
        self,
        usage: Usage,
        restarts: u64,
        began_at: i64,
    ) -> Reverse<Option<i128>> {
        let (cpu, memory) = usage;
        Reverse(match self {
            Self::Name => None,
            Self::Cpu => cpu.map(Into::into),
            Self::Memory => memory.map(Into::into),
            Self::Restarts => Some(restarts.into()),
            Self::Age => Some(began_at.into()),
        })
    }
}

/// What keys go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    List,
    /// A filter is being written.
    Filter,
    /// A pod's page.
    Page(Page),
    /// Whether to restart a container; what was there before comes back.
    Confirm {
        id: String,
        what: String,
        before: Option<Page>,
    },
}

/// A pod's page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) container: String,
}

/// What can be selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) namespace: String,
    pub(super) pod: String,
    /// Empty: the pod itself.
    pub(super) container: String,
}

pub(super) struct Model {
    pub(super) namespace: Option<String>,
    /// `None` until haled has told.
    pods: Option<Vec<Pod>>,
    pub(super) usage: HashMap<String, Usage>,
    pub(super) filter: String,
    pub(super) sort: Sort,
    pub(super) mode: Mode,
    pub(super) selected: Option<Key>,
    /// Said at the bottom until the next key.
    pub(super) told: String,
    /// Of the page, oldest first: when, what, whether it is bad.
    pub(super) events: VecDeque<(i64, String, bool)>,
    pub(super) log: VecDeque<String>,
}

/// Init containers first.
pub(super) fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.init_containers.iter().chain(&pod.containers)
}

/// What all containers of a pod use, as far as it is known.
pub(super) fn usage_of(pod: &Pod, usage: &HashMap<String, Usage>) -> Usage {
    let add = |a: Option<u64>, b: Option<u64>| match (a, b) {
        (None, b) => b,
        (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
    };
    let all = containers(pod).filter_map(|container| usage.get(&container.id));
    all.fold((None, None), |(cpu, memory), (c, m)| (add(cpu, *c), add(memory, *m)))
}

impl Model {
    pub(super) fn new(namespace: Option<String>, sort: Sort) -> Self {
        Self {
            namespace,
            pods: None,
            usage: HashMap::new(),
            filter: String::new(),
            sort,
            mode: Mode::List,
            selected: None,
            told: String::new(),
            events: VecDeque::new(),
            log: VecDeque::new(),
        }
    }

    /// Whether haled has told of pods yet.
    pub(super) fn is_loading(&self) -> bool {
        self.pods.is_none()
    }

    pub(super) fn all(&self) -> &[Pod] {
        self.pods.as_deref().unwrap_or_default()
    }

    /// The pods that the filter lets through, in their order.
    pub(super) fn pods(&self) -> Vec<&Pod> {
        let wanted = self.filter.to_lowercase();
        let fits = |pod: &&Pod| {
            let own = [&pod.namespace, &pod.name, &pod.phase, &pod.status];
            let theirs = containers(pod).flat_map(|c| [&c.name, &c.state, &c.reason]);
            own.into_iter().chain(theirs).any(|word| word.to_lowercase().contains(&wanted))
        };
        let mut pods: Vec<&Pod> = self.all().iter().filter(fits).collect();
        // A stable order beneath: haled's own, by namespace and name.
        pods.sort_by_key(|pod| {
            self.sort.weight(usage_of(pod, &self.usage), status::restarts(pod), pod.created_at)
        });
        pods
    }

    pub(super) fn pod_of(&self, page: &Page) -> Option<&Pod> {
        self.all().iter().find(|pod| pod.namespace == page.namespace && pod.name == page.pod)
    }

    /// Everything that can be selected, in order.
    pub(super) fn keys(&self) -> Vec<Key> {
        let of_pod = |pod: &Pod| {
            let key = |container: &str| Key {
                namespace: pod.namespace.clone(),
                pod: pod.name.clone(),
                container: container.to_owned(),
            };
            let own = key("");
            std::iter::once(own).chain(containers(pod).map(|c| key(&c.name))).collect::<Vec<_>>()
        };
        self.pods().into_iter().flat_map(of_pod).collect()
    }

    pub(super) fn take(&mut self, news: News) {
        match news {
            News::Pods(pods) => {
                self.pods = Some(pods);
                self.select_something();
            }
            News::Usage(usage) => self.usage = usage.into_iter().collect(),
            News::Event { at, text, warning } => keep(&mut self.events, (at, text, warning)),
            News::Log(line) => keep(&mut self.log, line),
            News::Told(words) => self.told = words,
            // Ends the screen before it gets here.
            News::Broken(_) => {}
        }
    }

    fn select_something(&mut self) {
        let keys = self.keys();
        if !self.selected.as_ref().is_some_and(|selected| keys.contains(selected)) {
            self.selected = keys.into_iter().next();
        }
    }

    /// `page`: rows that Page Up and Down go over.
    pub(super) fn key(&mut self, key: KeyEvent, page: usize) -> Action {
        if key.kind == KeyEventKind::Release {
            return Action::None;
        }
        self.told.clear();
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Action::Quit } else { Action::None };
        }
        match self.mode.clone() {
            Mode::List => self.list_key(key.code, page),
            Mode::Filter => self.filter_key(key.code),
            Mode::Page(page) => self.page_key(key.code, page),
            Mode::Confirm { id, what, before } => {
                self.mode = before.map_or(Mode::List, Mode::Page);
                match key.code {
                    KeyCode::Char('y' | 'Y') => Action::Restart { id, what },
                    _ => Action::None,
                }
            }
        }
    }

    fn list_key(&mut self, code: KeyCode, page: usize) -> Action {
        match code {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Esc => self.filter_to(String::new()),
            KeyCode::Up | KeyCode::Char('k') => self.move_by(-1),
            KeyCode::Down | KeyCode::Char('j') => self.move_by(1),
            KeyCode::PageUp => self.move_by(-(page as isize)),
            KeyCode::PageDown => self.move_by(page as isize),
            KeyCode::Home | KeyCode::Char('g') => self.move_by(isize::MIN / 2),
            KeyCode::End | KeyCode::Char('G') => self.move_by(isize::MAX / 2),
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char('n') => self.sort = Sort::Name,
            KeyCode::Char('c') => self.sort = Sort::Cpu,
            KeyCode::Char('m') => self.sort = Sort::Memory,
            KeyCode::Char('t') => self.sort = Sort::Restarts,
            KeyCode::Char('a') => self.sort = Sort::Age,
            KeyCode::Char('r') => self.ask_for_restart(None),
            KeyCode::Enter => return self.open(),
            _ => {}
        }
        Action::None
    }

    fn filter_key(&mut self, code: KeyCode) -> Action {
        match code {
            KeyCode::Enter => self.mode = Mode::List,
            KeyCode::Esc => {
                self.mode = Mode::List;
                self.filter_to(String::new());
            }
            KeyCode::Backspace => {
                let mut filter = self.filter.clone();
                filter.pop();
                self.filter_to(filter);
            }
            KeyCode::Char(c) if self.filter.chars().count() < FILTER_LIMIT => {
                self.filter_to(format!("{}{c}", self.filter));
            }
            _ => {}
        }
        Action::None
    }

    fn page_key(&mut self, code: KeyCode, page: Page) -> Action {
        match code {
            KeyCode::Char('q') => Action::Quit,
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => {
                self.mode = Mode::List;
                Action::Close
            }
            KeyCode::Char('r') => {
                self.ask_for_restart(Some(page));
                Action::None
            }
            KeyCode::Tab => {
                let names: Vec<_> = self
                    .pod_of(&page)
                    .map(|pod| containers(pod).map(|c| c.name.clone()).collect())
                    .unwrap_or_default();
                let at = names.iter().position(|name| *name == page.container).unwrap_or(0);
                let Some(next) = names.get((at + 1) % names.len().max(1)) else {
                    return Action::None;
                };
                self.show(Page { container: next.clone(), ..page })
            }
            _ => Action::None,
        }
    }

    fn filter_to(&mut self, filter: String) {
        self.filter = filter;
        self.select_something();
    }

    fn move_by(&mut self, by: isize) {
        let keys = self.keys();
        let at = self.selected.as_ref().and_then(|s| keys.iter().position(|key| key == s));
        let last = keys.len().saturating_sub(1);
        let to = at.unwrap_or(0).saturating_add_signed(by).min(last);
        self.selected = keys.into_iter().nth(to);
    }

    fn open(&mut self) -> Action {
        let Some(key) = self.selected.clone() else { return Action::None };
        let page = Page { namespace: key.namespace, pod: key.pod, container: key.container };
        let main = self.pod_of(&page).and_then(|pod| pod.containers.first());
        let main = main.map(|container| container.name.clone()).unwrap_or_default();
        let container = if page.container.is_empty() { main } else { page.container.clone() };
        self.show(Page { container, ..page })
    }

    fn show(&mut self, page: Page) -> Action {
        self.events.clear();
        self.log.clear();
        let Page { namespace, pod, container } = page.clone();
        self.mode = Mode::Page(page);
        Action::Open { namespace, pod, container }
    }

    fn ask_for_restart(&mut self, before: Option<Page>) {
        let selected = match (&before, &self.selected) {
            (Some(page), _) => Some(page.clone()),
            (None, Some(key)) => Some(Page {
                namespace: key.namespace.clone(),
                pod: key.pod.clone(),
                container: key.container.clone(),
            }),
            (None, None) => None,
        };
        let Some(page) = selected else { return };
        let Some(pod) = self.pod_of(&page).cloned() else { return };
        let pod = &pod;
        let mut all = containers(pod);
        let container = if page.container.is_empty() && all.by_ref().count() == 1 {
            containers(pod).next()
        } else {
            containers(pod).find(|container| container.name == page.container)
        };
        match container {
            Some(container) if container.state == "Running" => {
                let what = format!("{}/{} {}", pod.namespace, pod.name, container.name);
                self.mode = Mode::Confirm { id: container.id.clone(), what, before };
            }
            Some(container) => self.told = format!("{} does not run", container.name),
            None => self.told = "choose one of the pod's containers to restart".to_owned(),
        }
    }
}

fn keep<T>(kept: &mut VecDeque<T>, one: T) {
    if kept.len() == KEPT {
        kept.pop_front();
    }
    kept.push_back(one);
}
