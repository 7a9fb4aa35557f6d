//! Whether a document is one of its kind, by the schemas in `tests/schemas`.

use serde_json::Value;
use yaml_rust2::Yaml;

/// A document of YAML as one of JSON.
pub fn json(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Null => Value::Null,
        Yaml::Boolean(value) => Value::from(*value),
        Yaml::Integer(value) => Value::from(*value),
        Yaml::Real(text) => Value::from(text.parse::<f64>().unwrap()),
        Yaml::String(text) => Value::from(text.as_str()),
        Yaml::Array(values) => values.iter().map(json).collect(),
        Yaml::Hash(pairs) => {
            let pair = |(name, value): (&Yaml, &Yaml)| (name.as_str().unwrap().to_owned(), json(value));
            Value::Object(pairs.iter().map(pair).collect())
        }
        other => panic!("{other:?} has no place in a manifest"),
    }
}

/// What is wrong with a document, by the schemas of a file; none, when there is none of its kind.
pub fn problems(schemas: &Value, document: &Value) -> Option<Vec<String>> {
    let mut schema = schemas["kinds"].get(document["kind"].as_str()?)?.clone();
    schema["$defs"] = schemas["$defs"].clone();
    if schema["$defs"].is_null() {
        schema["$defs"] = Value::Object(serde_json::Map::new());
    }
    let validator = jsonschema::validator_for(&schema).unwrap();
    let problems = validator.iter_errors(document);
    Some(problems.map(|problem| problem.to_string()).collect())
}
