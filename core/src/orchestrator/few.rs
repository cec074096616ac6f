//! A list of tasks that most often has one or none.

use std::iter::Chain;
use std::{option, slice, vec};

use crate::model::Task;

/// Tasks in the order in which they were added. The first needs no memory of its own: a pass puts
/// ten thousand slots together, most of which have one task, and would spend its time on that.
#[derive(Debug, Clone, Default)]
pub(crate) struct Few<'a> {
    first: Option<&'a Task>,
    others: Vec<&'a Task>,
}

impl<'a> Few<'a> {
    pub(crate) fn push(&mut self, task: &'a Task) {
        match self.first {
            None => self.first = Some(task),
            Some(_) => self.others.push(task),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &&'a Task> {
        self.into_iter()
    }

    pub(crate) fn first(&self) -> Option<&'a Task> {
        self.first
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}

impl<'a> Extend<&'a Task> for Few<'a> {
    fn extend<I: IntoIterator<Item = &'a Task>>(&mut self, tasks: I) {
        tasks.into_iter().for_each(|task| self.push(task));
    }
}

impl<'a> FromIterator<&'a Task> for Few<'a> {
    fn from_iter<I: IntoIterator<Item = &'a Task>>(tasks: I) -> Self {
        let mut few = Self::default();
        few.extend(tasks);
        few
    }
}

impl<'a> IntoIterator for Few<'a> {
    type Item = &'a Task;
    type IntoIter = Chain<option::IntoIter<&'a Task>, vec::IntoIter<&'a Task>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.others)
    }
}

impl<'f, 'a> IntoIterator for &'f Few<'a> {
    type Item = &'f &'a Task;
    type IntoIter = Chain<option::Iter<'f, &'a Task>, slice::Iter<'f, &'a Task>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.iter().chain(&self.others)
    }
}
