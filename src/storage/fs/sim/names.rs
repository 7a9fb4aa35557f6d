//! The names on a simulated disk: files and directories.
//!
//! Owns: which names programs see, which are durable, the changes between the two, and what a crash makes of them. Does
//! not own: what the files hold.

use super::chance::{Chance, Pick};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    /// The file with this number.
    File(usize),
    Directory,
}

/// One change of names, which a crash keeps or loses as a whole: one name goes, one comes, or both.
#[derive(Debug, Clone)]
struct Change {
    gone: Option<PathBuf>,
    new: Option<(PathBuf, Node)>,
}

impl Change {
    fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.gone.iter().chain(self.new.iter().map(|(path, _)| path))
    }

    fn shares_a_name_with(&self, other: &Self) -> bool {
        self.paths().any(|path| other.paths().any(|known| known == path))
    }

    /// The directory whose sync makes it durable: that of the new name, or else of the old one.
    fn dir(&self) -> Option<&Path> {
        let path = self.new.as_ref().map(|(path, _)| path).or(self.gone.as_ref())?;
        path.parent()
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        if let Some(path) = &self.gone {
            names.remove(path);
        }
        if let Some((path, node)) = &self.new {
            names.insert(path.clone(), *node);
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    live: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    /// Changes that no sync of a directory covered yet; `durable` with these applied is `live`.
    pending: Vec<Change>,
    /// Directories whose last sync failed, and in which nothing changed since: the next is told that there is nothing to do.
    taken_for_clean: BTreeSet<PathBuf>,
}

impl Names {
    pub(super) fn file(&self, path: &Path) -> Option<usize> {
        match self.live.get(path) {
            Some(Node::File(file)) => Some(*file),
            _ => None,
        }
    }

    pub(super) fn has(&self, path: &Path) -> bool {
        self.live.contains_key(path)
    }

    /// Whether a directory is there with nothing in it.
    pub(super) fn is_empty(&self, dir: &Path) -> bool {
        let is_in = |path: &&PathBuf| path.parent() == Some(dir);
        self.live.get(dir) == Some(&Node::Directory) && !self.live.keys().any(|path| is_in(&path))
    }

    /// The name of a file, if it has one.
    pub(super) fn of(&self, file: usize) -> Option<&PathBuf> {
        let mut names = self.live.iter();
        names.find(|(_, node)| **node == Node::File(file)).map(|(path, _)| path)
    }

    /// The files that have a name.
    pub(super) fn files(&self) -> impl Iterator<Item = (&PathBuf, usize)> {
        self.live.iter().filter_map(|(path, node)| match node {
            Node::File(file) => Some((path, *file)),
            Node::Directory => None,
        })
    }

    pub(super) fn add(&mut self, path: &Path, node: Node) {
        self.change(None, Some((path.to_path_buf(), node)));
    }

    pub(super) fn remove(&mut self, path: &Path) {
        self.change(Some(path.to_path_buf()), None);
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path, file: usize) {
        self.change(Some(from.to_path_buf()), Some((to.to_path_buf(), Node::File(file))));
    }

    fn change(&mut self, gone: Option<PathBuf>, new: Option<(PathBuf, Node)>) {
        let change = Change { gone, new };
        for dir in change.paths().filter_map(|path| path.parent()) {
            self.taken_for_clean.remove(dir);
        }
        change.apply(&mut self.live);
        self.pending.push(change);
    }

    /// A sync of a directory failed.
    pub(super) fn fail_to_sync(&mut self, dir: &Path) {
        self.taken_for_clean.insert(dir.to_path_buf());
    }

    /// Makes the changes in a directory durable, with those that they build on.
    pub(super) fn sync(&mut self, dir: &Path) {
        if self.taken_for_clean.contains(dir) {
            return;
        }
        let (mut covered, mut left): (Vec<Change>, Vec<Change>) = (Vec::new(), Vec::new());
        for change in self.pending.drain(..).rev() {
            let built_on = covered.iter().any(|later| later.shares_a_name_with(&change));
            if built_on || change.dir() == Some(dir) {
                covered.push(change);
            } else {
                left.push(change);
            }
        }
        left.reverse();
        self.pending = left;
        for change in covered.iter().rev() {
            change.apply(&mut self.durable);
        }
    }

    /// Leaves the durable names, and of the pending changes those that `pick` keeps. A change is kept only with those
    /// before it that it shares a name with.
    pub(super) fn crash(&mut self, chance: &mut Chance, pick: Pick) {
        let mut lost: Vec<Change> = Vec::new();
        for change in self.pending.drain(..) {
            let possible = !lost.iter().any(|earlier| earlier.shares_a_name_with(&change));
            if possible && chance.pick(pick, 2) == 1 {
                change.apply(&mut self.durable);
            } else {
                lost.push(change);
            }
        }
        for (path, node) in lost.into_iter().filter_map(|change| change.new) {
            if node == Node::Directory {
                self.durable.retain(|known, _| !known.starts_with(&path));
            }
        }
        self.live.clone_from(&self.durable);
        self.taken_for_clean.clear();
    }
}
