//! Text and columns made of paths: `{range PATH}…{end}`, `{PATH}`, `{"text"}` and text. Pure.

use std::str::FromStr;

use serde_json::Value;

use super::{Path, by_commas, outside_quotes, text, unquoted};

/// What gives a template its text.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Path(Path),
    /// The pieces, once for each value there.
    Range(Path, Vec<Piece>),
}

/// `{.items[*].metadata.name}{"\n"}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Template(Vec<Piece>);

/// `NAME:.metadata.name,IP:.status.podIP`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct CustomColumns(Vec<(String, Path)>);

impl Template {
    pub(in crate::cli) fn text(&self, value: &Value) -> String {
        texts(&self.0, value)
    }
}

fn texts(pieces: &[Piece], value: &Value) -> String {
    let piece = |piece: &Piece| match piece {
        Piece::Text(text) => text.clone(),
        Piece::Path(path) => path.text(value),
        Piece::Range(path, pieces) => {
            path.of(value).into_iter().map(|item| texts(pieces, item)).collect()
        }
    };
    pieces.iter().map(piece).collect()
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.contains('{') {
            // Without braces it would be the same text for everything.
            return Ok(Self(vec![Piece::Path(text.parse()?)]));
        }
        // The ranges that are open, and outside of them all the template itself.
        let mut open: Vec<(Option<Path>, Vec<Piece>)> = vec![(None, Vec::new())];
        let mut rest = text;
        while let Some((before, inner)) = rest.split_once('{') {
            let end =
                outside_quotes(inner, '}').ok_or_else(|| format!("\"{text}\": a }} is missing"))?;
            let expression = inner[..end].trim();
            rest = &inner[end + 1..];
            let pieces = &mut open.last_mut().expect("the template itself").1;
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            if let Some(words) = unquoted(expression) {
                pieces.push(Piece::Text(words));
            } else if let Some(path) = expression.strip_prefix("range ") {
                open.push((Some(path.trim().parse()?), Vec::new()));
            } else if expression == "end" {
                let (Some((Some(path), pieces)), Some((_, outer))) = (open.pop(), open.last_mut())
                else {
                    return Err(format!("\"{text}\": {{end}} without a {{range}}"));
                };
                outer.push(Piece::Range(path, pieces));
            } else {
                pieces.push(Piece::Path(expression.parse()?));
            }
        }
        match (open.pop(), open.is_empty()) {
            (Some((_, mut pieces)), true) => {
                if !rest.is_empty() {
                    pieces.push(Piece::Text(rest.to_owned()));
                }
                Ok(Self(pieces))
            }
            _ => Err(format!("\"{text}\": a {{range}} without its {{end}}")),
        }
    }
}

impl CustomColumns {
    pub(in crate::cli) fn heading(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }

    /// `<none>` where there is nothing; several values by commas.
    pub(in crate::cli) fn cells(&self, value: &Value) -> Vec<String> {
        let cell = |(_, path): &(String, Path)| {
            let all: Vec<String> = path.of(value).into_iter().map(text).collect();
            if all.is_empty() { "<none>".to_owned() } else { all.join(",") }
        };
        self.0.iter().map(cell).collect()
    }
}

impl FromStr for CustomColumns {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let column = |part: &str| {
            let (name, path) = part
                .split_once(':')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| format!("\"{part}\": NAME:.PATH is wanted"))?;
            Ok((name.to_owned(), path.parse()?))
        };
        by_commas(text).into_iter().map(column).collect::<Result<_, String>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        json!({
            "metadata": {"name": "web", "annotations": {"a.b/c": "x"}},
            "spec": {"containers": [{"name": "app", "image": "i1"}, {"name": "side", "image": "i2"}]},
            "status": {"ready": true, "count": 7, "conditions": [
                {"type": "Ready", "status": "False"}, {"type": "PodScheduled", "status": "True"},
            ]},
        })
    }

    #[test]
    fn a_template_is_filled_in() {
        for (template, expected) in [
            ("{.metadata.name}", "web"),
            (".metadata.name", "web"),
            ("{$.status.count}{'\\t'}{.status.ready}", "7\ttrue"),
            ("{.spec.containers[*].name}", "app side"),
            ("{.spec.containers[-1].name}", "side"),
            ("{.metadata.annotations.a\\.b/c}", "x"),
            ("{.metadata['annotations'][\"a.b/c\"]}", "x"),
            ("{.metadata.annotations}", "{\"a.b/c\":\"x\"}"),
            ("{.status.conditions[?(@.type==\"Ready\")].status}", "False"),
            ("{range .spec.containers[*]}{.name}={.image}{\"\\n\"}{end}!", "app=i1\nside=i2\n!"),
            ("is {.nothing.at[3].all}", "is "),
        ] {
            let parsed: Template = template.parse().expect(template);
            assert_eq!(parsed.text(&pod()), expected, "{template}");
        }
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for (template, why) in [
            ("", "a path is wanted"),
            ("{", "a } is missing"),
            ("{.a", "a } is missing"),
            ("{..name}", ".. is not understood"),
            ("{.a[0:2]}", "[0:2] is not understood"),
            ("{.a[?(@.b>1)]}", "only == is understood"),
            ("{.a[0}", "a } is missing"),
            ("{.a[0]b}", "a . is missing before \"b\""),
            ("{.a.}", "a field's name is missing"),
            ("{range .a[*]}{.b}", "without its {end}"),
            ("{.a}{end}", "{end} without a {range}"),
            ("{range .a[*]}{end}{end}", "{end} without a {range}"),
        ] {
            let error = template.parse::<Template>().expect_err(template);
            assert!(error.contains(why), "{template}: {error}");
        }
    }

    #[test]
    fn columns_are_paths_too() {
        let columns: CustomColumns =
            "NAME:.metadata.name,ALL:.spec.containers[*].name,NO:{.x}".parse().unwrap();
        assert_eq!(columns.heading(), ["NAME", "ALL", "NO"]);
        assert_eq!(columns.cells(&pod()), ["web", "app,side", "<none>"]);
        for wrong in ["", "NAME", ":.a", "A:.a,B"] {
            wrong.parse::<CustomColumns>().expect_err(wrong);
        }
    }
}
