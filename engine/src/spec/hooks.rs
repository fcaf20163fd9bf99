//! Hooks in the words of `config.json`: a list for each stage.

use serde_json::{Map, Value, json};
use tripod_shim_protocol::Hook;

pub(super) fn hooks(hooks: &[Hook]) -> Value {
    let mut stages = Map::new();
    for hook in hooks {
        // Some runtimes would start it without the name under which programs of many names find out what they are.
        let args = if hook.args.is_empty() { json!([hook.path]) } else { json!(hook.args) };
        let entry = super::present(json!({
            "path": hook.path,
            "args": args,
            "env": hook.env,
            "timeout": hook.timeout,
        }));
        for stage in &hook.stages {
            // A stage is written as its name.
            if let Value::String(name) = json!(stage)
                && let Some(list) = stages.entry(name).or_insert_with(|| json!([])).as_array_mut()
            {
                list.push(entry.clone());
            }
        }
    }
    stages.into()
}
