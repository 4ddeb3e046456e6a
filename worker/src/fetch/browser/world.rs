//! Our own world in the main frame: scripts of ours run beside the page's, which cannot have replaced anything there.

use chromiumoxide::{
    cdp::{
        browser_protocol::page::CreateIsolatedWorldParams,
        js_protocol::runtime::{EvaluateParams, ExecutionContextId},
    },
    error::CdpError,
};
use serde_json::Value;
use tokio::sync::watch;

use super::failed;
use crate::{browser::Tab, fetch::FetchError};

/// The world that the DevTools client makes anyway: another one would cost each document another context.
const WORLD: &str = "__chromiumoxide_utility_world__";

/// The world of the document that is there at the moment.
pub(super) struct World<'t> {
    pub(super) tab: &'t Tab,
    commits: watch::Receiver<u64>,
    context: Option<ExecutionContextId>,
}

impl<'t> World<'t> {
    pub(super) fn of(tab: &'t Tab) -> Self {
        Self {
            tab,
            commits: tab.traffic.commits(),
            context: None,
        }
    }

    /// Until the main frame has another document.
    pub(super) async fn commit(&mut self) {
        next(&mut self.commits).await;
        self.context = None;
    }

    /// Calls a function of ours with these arguments and waits for what it promises. `None` when the document went away meanwhile, or
    /// when it threw.
    pub(super) async fn call(&mut self, function: &str, arguments: &[Value]) -> Result<Option<Value>, FetchError> {
        let script = script(function, arguments);
        if self.commits.has_changed().unwrap_or_default() {
            self.commits.mark_unchanged();
            self.context = None;
        }
        // A context that was remembered may be gone without a word.
        if let Some(context) = self.context
            && let Some(value) = self.evaluate(&script, context).await?
        {
            return Ok(Some(value));
        }
        let Some(context) = self.enter().await? else {
            return Ok(None);
        };
        self.context = Some(context);
        self.evaluate(&script, context).await
    }

    /// Calls a function in the page's own world. What it answers is the page's word.
    pub(super) async fn call_among_the_pages_own(&mut self, function: &str) -> Result<Option<Value>, FetchError> {
        let mut call = EvaluateParams::new(script(function, &[]));
        call.return_by_value = Some(true);
        self.run(call).await
    }

    async fn enter(&self) -> Result<Option<ExecutionContextId>, FetchError> {
        let mut world = CreateIsolatedWorldParams::new(self.tab.frame.clone());
        world.world_name = Some(WORLD.into());
        match self.tab.page.execute(world).await {
            Ok(context) => Ok(Some(context.result.execution_context_id)),
            Err(CdpError::Chrome(_)) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    async fn evaluate(&mut self, script: &str, context: ExecutionContextId) -> Result<Option<Value>, FetchError> {
        let mut call = EvaluateParams::new(script);
        call.context_id = Some(context);
        call.return_by_value = Some(true);
        call.await_promise = Some(true);
        self.run(call).await
    }

    async fn run(&mut self, call: EvaluateParams) -> Result<Option<Value>, FetchError> {
        let answer = tokio::select! {
            biased;
            answer = self.tab.page.execute(call) => answer,
            // Not every promise of a document that is gone is told as broken.
            () = next(&mut self.commits) => {
                self.context = None;
                return Ok(None);
            }
        };
        match answer {
            Ok(answer) if answer.result.exception_details.is_none() => Ok(answer.result.result.value),
            // An exception, or the context is gone.
            Ok(_) | Err(CdpError::Chrome(_)) => {
                self.context = None;
                Ok(None)
            }
            Err(error) => Err(failed(error)),
        }
    }
}

async fn next(commits: &mut watch::Receiver<u64>) {
    // Nothing is told any more of a tab that floods or is gone, which ends whatever waits here.
    if commits.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// JSON is JavaScript too, whatever stands in it.
fn script(function: &str, arguments: &[Value]) -> String {
    let arguments: Vec<String> = arguments.iter().map(Value::to_string).collect();
    format!("({function})({})", arguments.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_a_string_whatever_stands_in_it() {
        let call = script("f", &["');alert('\u{2028}\"".into(), 3.into()]);
        assert_eq!(call, "(f)(\"');alert('\u{2028}\\\"\", 3)");
    }
}
