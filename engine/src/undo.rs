//! The cleanup stack: each step that makes something outside the process registers how to undo it.

use futures::future::{BoxFuture, FutureExt};

use crate::{Error, Result};

/// Steps to undo, the last one first.
#[derive(Default)]
pub(crate) struct Undo {
    steps: Vec<(String, BoxFuture<'static, Result<()>>)>,
}

impl Undo {
    /// Registers how to undo what is about to be done; the future runs only if the operation fails.
    pub fn push(&mut self, step: impl Into<String>, undo: impl Future<Output = Result<()>> + Send + 'static) {
        self.steps.push((step.into(), undo.boxed()));
    }

    /// The operation failed: undoes every step whatever becomes of the others, and returns all that went wrong.
    pub async fn unwind(mut self) -> Vec<Error> {
        let mut errors = Vec::new();
        while let Some((step, undo)) = self.steps.pop() {
            if let Err(error) = undo.await {
                errors.push(error.during(format_args!("undo {step}")));
            }
        }
        errors
    }
}

impl std::fmt::Debug for Undo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.steps.iter().map(|(step, _)| step)).finish()
    }
}

#[cfg(test)]
mod tests;
