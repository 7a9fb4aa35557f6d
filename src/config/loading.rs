//! Puts a configuration together: file, then environment, then flags, the later over the earlier.
//!
//! Owns: that order, and what a person is told of what does not fit a key. Does not own: the keys.

use super::Config;
use super::advertised::Pod;
use config::{Value, ValueKind};
use std::collections::HashMap;
use std::path::Path;

/// Prefix of the environment variables: `PAIRDB__SERVER__PORT` is `server.port`.
const ENV_PREFIX: &str = "PAIRDB__";
/// Sets `server.node_id`, as orchestrators like to.
const ENV_NODE_ID: &str = "NODE_ID";

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read, or a key or value does not fit.
    #[error("{0}")]
    Unreadable(String),
    /// Values that cannot work, each with its key, what it is and what would be right.
    #[error("the configuration cannot work:\n  - {}", .0.join("\n  - "))]
    Impossible(Vec<String>),
}

impl Config {
    /// Reads a file, if there is one, then `environment`, then `flags` (key and value), and checks the whole.
    ///
    /// # Errors
    /// Names the key, the value and what would be right.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &[(&str, String)],
    ) -> Result<Self, ConfigError> {
        let mut builder = config::Config::builder();
        if let Some(file) = file {
            builder = builder.add_source(config::File::from(file).format(config::FileFormat::Toml));
        }
        let unreadable = |error: config::ConfigError| ConfigError::Unreadable(error.to_string());
        let mut overrides: Vec<(String, String)> = Vec::new();
        let mut pod = Pod::default();
        for (name, value) in environment {
            pod.see(&name, &value);
            if name == ENV_NODE_ID {
                // Behind the prefixed name, which says more exactly what is meant.
                overrides.insert(0, ("server.node_id".to_owned(), value));
            } else if let Some(key) = name.strip_prefix(ENV_PREFIX) {
                overrides.push((key.to_lowercase().replace("__", "."), value));
            }
        }
        overrides.extend(flags.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        for (key, value) in overrides {
            builder = if key == "cluster.nodes" {
                let nodes = value.split(',').filter(|node| !node.trim().is_empty());
                let nodes = nodes.map(|node| {
                    let (id, address) = node.trim().split_once('=').unwrap_or((node, ""));
                    (id.trim().to_owned(), address.trim().to_owned())
                });
                builder
                    .set_override(key, nodes.collect::<HashMap<_, _>>())
                    .map_err(unreadable)?
            } else if key == "gossip.seed_nodes" {
                let nodes = value.split(',').map(str::trim).filter(|node| !node.is_empty());
                let nodes: Vec<String> = nodes.map(str::to_owned).collect();
                builder.set_override(key, nodes).map_err(unreadable)?
            } else {
                builder.set_override(key, value).map_err(unreadable)?
            };
        }
        let merged = builder.build().map_err(unreadable)?;
        let mut config = all_of(merged)?;
        pod.name(&mut config.server);
        config.check()?;
        Ok(config)
    }
}

/// The configuration that stands in `merged`. What does not fit a key is left out, so that everything else that does not is told
/// at once with it.
fn all_of(merged: config::Config) -> Result<Config, ConfigError> {
    let mut root: Value = merged
        .try_deserialize()
        .map_err(|error| ConfigError::Unreadable(error.to_string()))?;
    let mut problems = Vec::new();
    loop {
        let error = match serde_path_to_error::deserialize::<_, Config>(root.clone()) {
            Ok(config) if problems.is_empty() => return Ok(config),
            Ok(config) => {
                if let Err(ConfigError::Impossible(others)) = config.check() {
                    problems.extend(others);
                }
                break;
            }
            Err(error) => error,
        };
        let key = error.path().to_string();
        let is_left_out = remove(&mut root, &key);
        problems.push(format!("configuration key {key}: {}", error.into_inner()));
        if !is_left_out {
            break;
        }
    }
    Err(match <[String; 1]>::try_from(problems) {
        Ok([problem]) => ConfigError::Unreadable(problem),
        Err(problems) => ConfigError::Impossible(problems),
    })
}

/// Leaves out a key; says whether it was there.
fn remove(within: &mut Value, key: &str) -> bool {
    let ValueKind::Table(table) = &mut within.kind else {
        return false;
    };
    if table.remove(key).is_some() {
        return true;
    }
    // A tenant's name may have dots of its own.
    let sections = table.iter_mut().filter_map(|(name, section)| {
        let rest = key.strip_prefix(name.as_str())?.strip_prefix('.')?;
        Some((section, rest))
    });
    sections.into_iter().any(|(section, rest)| remove(section, rest))
}
