//! The API's description, held against the server: every path, every field of a request, every answer.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod fake;

use std::{collections::BTreeSet, fs};

use fake::{Engine, TempDir};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::mpsc,
};
use weave_control::{ListenConfig, Listener, serve};

struct Server {
    dir: TempDir,
    engine: Engine,
}

impl Server {
    async fn start() -> Self {
        let (dir, engine) = (TempDir::new(), Engine::default());
        let listener = Listener::bind(&ListenConfig::new(dir.join("weave.sock"))).await.unwrap();
        let (commands, receiver) = mpsc::channel(4);
        tokio::spawn(engine.clone().run(receiver));
        tokio::spawn(serve(listener, commands, std::future::pending()));
        Self { dir, engine }
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let mut stream = UnixStream::connect(self.dir.join("weave.sock")).await.unwrap();
        let body = if method == "GET" { String::new() } else { body.to_string() };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {body}")))
    }
}

fn document() -> Value {
    serde_json::from_str(weave_api::OPENAPI).unwrap()
}

/// The schema that a reference names, or the one itself.
fn resolve<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    match schema.get("$ref") {
        Some(name) => document.pointer(name.as_str().unwrap().strip_prefix('#').unwrap()).unwrap(),
        None => schema,
    }
}

/// What of a value does not fit its schema; enough of JSON Schema for our document, and nothing is passed over.
fn misfits(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let schema = resolve(document, schema);
    let mut wrong = Vec::new();
    for (word, rule) in schema.as_object().unwrap() {
        let rules = || rule.as_array().unwrap().iter().map(|one| misfits(document, one, value, at));
        match word.as_str() {
            "allOf" => wrong.extend(rules().flatten()),
            "anyOf" if rules().all(|misfits| !misfits.is_empty()) => {
                wrong.push(format!("{at}: {value} is none of {rule}"))
            }
            "enum" if !rule.as_array().unwrap().contains(value) => {
                wrong.push(format!("{at}: {value} is not in {rule}"))
            }
            "type" if !is_of_type(rule.as_str().unwrap(), value) => {
                wrong.push(format!("{at}: {value} is no {rule}"))
            }
            "minimum" if value.as_i64().is_some_and(|n| n < 0) => {
                wrong.push(format!("{at}: {value} is negative"))
            }
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    wrong.extend(misfits(document, rule, item, &format!("{at}[]")));
                }
            }
            "required" => {
                let missing =
                    rule.as_array().unwrap().iter().filter(|key| value.get(key.as_str().unwrap()).is_none());
                wrong.extend(missing.map(|key| format!("{at}: {key} is missing")));
            }
            "properties" => wrong.extend(fields(document, rule.as_object().unwrap(), value, schema, at)),
            "additionalProperties" if rule.is_object() => {
                for (key, field) in value.as_object().into_iter().flatten() {
                    wrong.extend(misfits(document, rule, field, &format!("{at}.{key}")));
                }
            }
            "anyOf" | "enum" | "type" | "minimum" | "additionalProperties" | "description" | "pattern" => {}
            other => panic!("the test does not know `{other}`"),
        }
    }
    wrong
}

fn fields(
    document: &Value,
    known: &Map<String, Value>,
    value: &Value,
    schema: &Value,
    at: &str,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for (key, field) in value.as_object().into_iter().flatten() {
        match known.get(key) {
            Some(rule) => wrong.extend(misfits(document, rule, field, &format!("{at}.{key}"))),
            None if schema["additionalProperties"] == json!(false) => {
                wrong.push(format!("{at}: {key} is not described"))
            }
            None => {}
        }
    }
    wrong
}

fn is_of_type(wanted: &str, value: &Value) -> bool {
    match wanted {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("no type of JSON: {other}"),
    }
}

/// Every documented operation: path, method, description.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let all = paths.iter().flat_map(|(path, methods)| {
        methods
            .as_object()
            .unwrap()
            .iter()
            .map(move |(method, what)| (path.clone(), method.to_uppercase(), what.clone()))
    });
    all.collect()
}

fn content(of: &Value) -> &Value {
    &of["content"]["application/json"]
}

#[tokio::test]
async fn every_example_is_answered_as_described() {
    let (server, document) = (Server::start().await, document());
    let address = "10.40.0.9/12".parse().unwrap();
    server.engine.0.lock().unwrap().addresses.insert("held".parse().unwrap(), vec![address]);
    server.engine.0.lock().unwrap().targets.insert("192.0.2.12".to_owned());
    for (path, method, what) in operations(&document) {
        let example = content(&what["requestBody"])["example"].clone();
        assert!(method == "GET" || example.is_object(), "{path} has no example");
        let (status, answer) = server.ask(&method, &path, &example).await;
        let described = if status == 200 { &what["responses"]["200"] } else { &what["responses"]["default"] };
        let wrong = misfits(&document, &content(described)["schema"], &answer, &path);
        assert!(wrong.is_empty(), "{path} answers {status} {answer}: {wrong:#?}");
        assert!(status == 200 || answer["code"] != "unknown_path", "{path} does not exist");
    }
}

#[tokio::test]
async fn every_field_that_is_described_is_understood_and_no_other() {
    let (server, document) = (Server::start().await, document());
    for (path, method, what) in operations(&document).into_iter().filter(|(_, method, _)| method == "POST") {
        let request = content(&what["requestBody"]);
        let schema = resolve(&document, &request["schema"]);
        let mut odd = request["example"].clone();
        odd["nonsense"] = json!(1);
        let (status, answer) = server.ask(&method, &path, &odd).await;
        assert_eq!((status, &answer["code"]), (400, &json!("bad_request")), "{path}: {answer}");
        for field in schema["properties"].as_object().unwrap().keys() {
            // Whatever is wrong with the value, the name is known.
            let (_, answer) = server.ask(&method, &path, &json!({ field: {"of": "another kind"} })).await;
            let said = answer["message"].as_str().unwrap_or_default();
            assert!(!said.contains(&format!("unknown field `{field}`")), "{path}: {answer}");
        }
    }
}

#[tokio::test]
async fn the_description_names_every_path_and_is_served() {
    let (server, document) = (Server::start().await, document());
    assert_eq!(server.ask("GET", "/v1/openapi.json", &Value::Null).await, (200, document.clone()));
    let described: BTreeSet<String> = operations(&document).into_iter().map(|(path, _, _)| path).collect();
    let mut existing = BTreeSet::new();
    for file in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../api/src")).unwrap() {
        let path = file.unwrap().path();
        let source = if path.is_file() { fs::read_to_string(path).unwrap() } else { String::new() };
        let quoted = source.split('"').skip(1).step_by(2).filter(|text| text.starts_with("/v1/"));
        existing.extend(quoted.map(str::to_owned));
    }
    existing.remove("/v1/openapi.json");
    assert_eq!(described, existing, "describe them in router/api/openapi.json, with an example each");
}
