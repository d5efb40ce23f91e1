//! Images: list, pull, import, export, remove, prune, inspect.

mod export;
mod import;
mod pull;

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::proto::haled::{
    ImageSummary, InspectImageRequest, ListImagesRequest, PruneImagesRequest, PruneImagesResponse,
    RemoveImageRequest,
};

use super::client::{self, Address};
use super::json::written;
use super::options::{InspectArgs, ListArgs, ListFormat, ObjectFormat, PruneArgs, RemoveArgs};
use super::output::{complain, line, print};
use super::table::table;
use super::{Failure, Outcome, age};

pub(super) use export::export;
pub(super) use import::import;
pub(super) use pull::pull;

/// The digits of an image's id that are shown.
const SHORT_ID: usize = 12;

/// `halectl image ls`.
pub(super) async fn list(address: &Address, args: ListArgs) -> Outcome {
    let mut client = client::own_images(address).await?;
    let mut images = client.list(ListImagesRequest {}).await?.into_inner().images;
    // In the table's order, whatever is printed of them.
    let name = |image: &ImageSummary| image.tags.iter().chain(&image.digests).min().cloned();
    images.sort_by_cached_key(|image| (name(image), image.id.clone()));
    if !args.images.is_empty() {
        images.retain_mut(|image| args.images.iter().any(|wanted| keep_named(image, wanted)));
    }
    if args.quiet {
        for image in &images {
            print(format!("{}\n", line(&image.id)))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let table = |wide| {
        let table = image_table(&images, jiff::Timestamp::now(), wide);
        let rows = table.split_once('\n').map_or("", |(_, rows)| rows).to_owned();
        if args.no_headers { rows } else { table }
    };
    print(match args.output {
        None => table(false),
        Some(ListFormat::Wide) => table(true),
        Some(ListFormat::Json) => written(&listed(&images), ObjectFormat::Json)?,
        Some(ListFormat::Yaml) => written(&listed(&images), ObjectFormat::Yaml)?,
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Whether an image is meant by a repository, with or without a tag, or by the beginning of its
/// id. Of its tags only those that are meant are kept. A repository may be named by its end.
fn keep_named(image: &mut ImageSummary, wanted: &str) -> bool {
    let hex = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    if hex.len() >= SHORT_ID / 2 && short_of(&image.id).starts_with(hex) {
        return true;
    }
    let is_meant = |name: &String| {
        let repository = name.split_once('@').map_or(name.as_str(), |(repository, _)| repository);
        let untagged = repository.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'));
        let untagged = untagged.map_or(repository, |(untagged, _)| untagged);
        let ends = |name: &str| name == wanted || name.ends_with(&format!("/{wanted}"));
        ends(name) || ends(repository) || ends(untagged)
    };
    if image.tags.iter().any(is_meant) {
        image.tags.retain(is_meant);
        return true;
    }
    image.digests.iter().any(is_meant)
}

/// A list of objects, by the names that `inspect` has.
fn listed(images: &[ImageSummary]) -> Value {
    let object = |image: &ImageSummary| {
        json!({
            "id": image.id,
            "tags": image.tags,
            "digests": image.digests,
            "size": image.size,
            "created": image.created,
            "pinned": image.pinned,
            "usedBy": image.used_by,
        })
    };
    images.iter().map(object).collect()
}

/// A row for each tag; an image without one has a row all the same. `wide`: nothing is
/// shortened.
pub(super) fn image_table(images: &[ImageSummary], now: jiff::Timestamp, wide: bool) -> String {
    let mut rows: Vec<_> = images.iter().flat_map(|image| image_rows(image, now, wide)).collect();
    rows.sort_unstable();
    table(&["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE", "USED BY"], &rows)
}

fn image_rows(image: &ImageSummary, now: jiff::Timestamp, wide: bool) -> Vec<Vec<String>> {
    let short = |digest: &str| if wide { digest.to_owned() } else { short(digest) };
    let none = || "<none>".to_owned();
    let by_digest = |repository: Option<&str>| {
        let mut digests = image.digests.iter().filter_map(|name| name.split_once('@'));
        digests.find(|(name, _)| repository.is_none_or(|wanted| wanted == *name))
    };
    let names: Vec<(String, String)> = if image.tags.is_empty() {
        vec![(by_digest(None).map_or_else(none, |(name, _)| name.to_owned()), none())]
    } else {
        let split = |tag: &String| {
            let (repository, tag) = tag.rsplit_once(':').unwrap_or((tag, ""));
            (repository.to_owned(), tag.to_owned())
        };
        image.tags.iter().map(split).collect()
    };
    let created = match image.created.parse::<jiff::Timestamp>() {
        // Builders that want the same image each time give it no real date.
        Ok(at) if at.as_second() > 0 => age::span(now.as_nanosecond() - at.as_nanosecond()),
        _ => "-".to_owned(),
    };
    let used = match (image.used_by.len(), image.pinned) {
        (0, true) => "pinned".to_owned(),
        (0, false) => "-".to_owned(),
        (1, _) => image.used_by[0].clone(),
        _ if wide => image.used_by.join(", "),
        (more, _) => format!("{} and {} more", image.used_by[0], more - 1),
    };
    let row = |(repository, tag): (String, String)| {
        let digest = by_digest(Some(&repository)).map_or_else(none, |(_, digest)| short(digest));
        vec![
            repository,
            tag,
            digest,
            short(&image.id),
            created.clone(),
            size(image.size),
            used.clone(),
        ]
    };
    names.into_iter().map(row).collect()
}

/// The first digits of a digest.
fn short(digest: &str) -> String {
    let hex = short_of(digest);
    hex.get(..SHORT_ID).unwrap_or(hex).to_owned()
}

fn short_of(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

/// Bytes to three figures, in powers of 1000 as registries count: `4.27MB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit < UNITS.len() - 1 {
        value /= 1000.0;
        unit += 1;
    }
    match value {
        _ if unit == 0 => format!("{bytes}B"),
        value if value < 9.995 => format!("{value:.2}{}", UNITS[unit]),
        value if value < 99.95 => format!("{value:.1}{}", UNITS[unit]),
        value => format!("{value:.0}{}", UNITS[unit]),
    }
}

/// `halectl image rm`. Every image is tried; one that isn't there doesn't save the others.
pub(super) async fn remove(address: &Address, args: RemoveArgs) -> Outcome {
    let mut client = client::own_images(address).await?;
    let mut code = ExitCode::SUCCESS;
    for name in args.images {
        let request = RemoveImageRequest { image: name.clone(), force: args.force };
        let failure = match client.remove(request).await {
            Ok(_) => {
                print(format!("{} removed\n", line(&name)))?;
                continue;
            }
            Err(status) if status.code() == tonic::Code::NotFound => {
                Failure::Message(format!("image \"{name}\" is not on this node"))
            }
            Err(status) => status.into(),
        };
        let Failure::Message(message) = failure else { return Err(failure) };
        complain(&message);
        code = ExitCode::FAILURE;
    }
    Ok(code)
}

/// `halectl image prune`: a line for each image, and what it came to.
pub(super) async fn prune(address: &Address, args: PruneArgs) -> Outcome {
    let mut client = client::own_images(address).await?;
    let answer = client.prune(PruneImagesRequest { all: args.all }).await?.into_inner();
    if args.quiet {
        return Ok(ExitCode::SUCCESS);
    }
    print(pruned(&answer))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn pruned(answer: &PruneImagesResponse) -> String {
    let name = |image: &ImageSummary| {
        let name = image.tags.first().or(image.digests.first()).unwrap_or(&image.id);
        format!("{} removed\n", line(name))
    };
    let freed = format!("{} freed\n", size(answer.freed));
    answer.removed.iter().map(name).chain([freed]).collect()
}

/// `halectl image inspect`: a list, as docker and podman have it. One that isn't there doesn't hide
/// the others.
pub(super) async fn inspect(address: &Address, args: InspectArgs) -> Outcome {
    let mut client = client::own_images(address).await?;
    let mut found = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for image in args.images {
        let json = match client.inspect(InspectImageRequest { image }).await {
            Ok(answer) => answer.into_inner().json,
            Err(status) => match Failure::from(status) {
                Failure::Message(message) => {
                    complain(&message);
                    code = ExitCode::FAILURE;
                    continue;
                }
                failure => return Err(failure),
            },
        };
        let object: serde_json::Value = serde_json::from_str(&json)
            .map_err(|error| Failure::Message(format!("haled's answer can't be read: {error}")))?;
        found.push(object);
    }
    if !found.is_empty() {
        print(written(&found.into(), args.output)?)?;
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_chosen_by_what_people_call_it() {
        let image = || ImageSummary {
            id: format!("sha256:{}", "0a1b2c3d".repeat(8)),
            tags: vec!["docker.io/library/busybox:1".into(), "q.io:5000/a/busy:2".into()],
            ..ImageSummary::default()
        };
        let tags = |wanted: &str| {
            let mut image = image();
            keep_named(&mut image, wanted).then_some(image.tags.len())
        };
        for wanted in ["busybox", "busybox:1", "library/busybox", "docker.io/library/busybox:1"] {
            assert_eq!(tags(wanted), Some(1), "{wanted}");
        }
        assert_eq!(tags("q.io:5000/a/busy"), Some(1));
        assert_eq!(tags("0a1b2c"), Some(2));
        assert_eq!(tags(&image().id), Some(2));
        for wanted in ["box", "busybox:2", "0a1", "busybox:1x", ""] {
            assert_eq!(tags(wanted), None, "{wanted}");
        }
    }

    #[test]
    fn sizes_have_three_figures() {
        let cases = [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.00kB"),
            (4_267_000, "4.27MB"),
            (99_940_000, "99.9MB"),
            (99_960_000, "100MB"),
            (999_600_000, "1.00GB"),
            (u64::MAX, "18447PB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(size(bytes), expected);
        }
    }
}
