//! Which plugin has asked for what of a container: two that want the same differ, and that is
//! an error that names both.

use std::collections::BTreeMap;

use super::Error;
use super::api::{CompoundFieldOwners, Field, FieldOwners, OwningPlugins};

/// By container, by field and by what of it (empty for a field of one value), the plugin.
#[derive(Debug, Clone, Default)]
pub(super) struct Owners(BTreeMap<String, BTreeMap<(i32, String), String>>);

impl Owners {
    /// `plugin` sets this. An error: another did already.
    pub(super) fn claim(
        &mut self,
        container: &str,
        field: Field,
        key: &str,
        plugin: &str,
    ) -> Result<(), Error> {
        let fields = self.0.entry(container.to_owned()).or_default();
        let owner = fields.entry((field as i32, key.to_owned()));
        let owner = owner.or_insert_with(|| plugin.to_owned());
        if *owner == plugin {
            return Ok(());
        }
        Err(Error::Conflict {
            container: container.to_owned(),
            field: name(field, key),
            first: owner.clone(),
            second: plugin.to_owned(),
        })
    }

    /// What was set is taken away: it is anyone's again.
    pub(super) fn release(&mut self, container: &str, field: Field, key: &str) {
        if let Some(fields) = self.0.get_mut(container) {
            fields.remove(&(field as i32, key.to_owned()));
        }
    }

    /// As plugins are told.
    pub(super) fn told(&self) -> OwningPlugins {
        let owners = self.0.iter().map(|(container, fields)| {
            let mut told = FieldOwners::default();
            for ((field, key), plugin) in fields {
                if key.is_empty() {
                    told.simple.insert(*field, plugin.clone());
                } else {
                    let compound: &mut CompoundFieldOwners =
                        told.compound.entry(*field).or_default();
                    compound.owners.insert(key.clone(), plugin.clone());
                }
            }
            (container.clone(), told)
        });
        OwningPlugins { owners: owners.collect() }
    }
}

fn name(field: Field, key: &str) -> String {
    let field = field.as_str_name();
    if key.is_empty() { field.to_owned() } else { format!("{field} \"{key}\"") }
}
