use serde_json::{Value, json};

use super::*;
use crate::policy::tests::cosign::Store;

fn bundle() -> Value {
    serde_json::from_slice(&Store::new().bundle("v3/p256").1).unwrap()
}

fn opened(bundle: &Value) -> Result<bool, String> {
    Ok(Envelope::parse(bundle.to_string().as_bytes())?.open(&[Store::new().key("p256")]).is_some())
}

#[test]
fn what_was_changed_is_not_signed() {
    assert_eq!(opened(&bundle()), Ok(true));
    let envelope = |key: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bundle = bundle();
        let text = match key {
            "payload" => &mut bundle["dsseEnvelope"]["payload"],
            _ => &mut bundle["dsseEnvelope"]["signatures"][0]["sig"],
        };
        let mut bytes = BASE64_STANDARD.decode(text.as_str().unwrap()).unwrap();
        change(&mut bytes);
        *text = BASE64_STANDARD.encode(bytes).into();
        opened(&bundle)
    };
    for key in ["payload", "sig"] {
        assert_eq!(envelope(key, &|_| {}), Ok(true));
        assert_eq!(envelope(key, &|bytes| bytes.clear()), Ok(false), "{key}");
        assert_eq!(envelope(key, &|bytes| bytes.push(b' ')), Ok(false), "{key}");
        assert_eq!(envelope(key, &|bytes| bytes.truncate(bytes.len() - 1)), Ok(false), "{key}");
        assert_eq!(envelope(key, &|bytes| bytes.insert(0, 0)), Ok(false), "{key}");
        let length = BASE64_STANDARD.decode(bundle()["dsseEnvelope"]["signatures"][0]["sig"].as_str().unwrap());
        for at in 0..length.unwrap().len() {
            assert_eq!(envelope(key, &|bytes| bytes[at] ^= 1), Ok(false), "{key}, byte {at}");
        }
    }
    // A signature of the payload alone is none of an envelope.
    let mut plain = bundle();
    plain["dsseEnvelope"]["payload"] = BASE64_STANDARD.encode(authenticated(STATEMENT, b"{}")).into();
    assert_eq!(opened(&plain), Ok(false));
}

#[test]
fn forms_that_are_open_to_doubt() {
    type Change = fn(&mut Value);
    let changes: [(Change, &str); 16] = [
        (|bundle| bundle["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.1".into(), "another type"),
        (|bundle| bundle["mediaType"] = Value::Null, "no bundle"),
        (|bundle| bundle["dsseEnvelope"]["payloadType"] = "application/json".into(), "not of the type"),
        (|bundle| bundle["dsseEnvelope"]["payloadType"] = "application/vnd.in-toto+json ".into(), "not of the type"),
        (|bundle| bundle["dsseEnvelope"]["signatures"] = json!([]), "0 signatures"),
        (
            |bundle| {
                let one = bundle["dsseEnvelope"]["signatures"][0].clone();
                bundle["dsseEnvelope"]["signatures"] = json!([one, one]);
            },
            "2 signatures",
        ),
        (|bundle| bundle["dsseEnvelope"]["signatures"] = Value::Null, "no bundle"),
        (|bundle| bundle["dsseEnvelope"]["signatures"][0]["sig"] = "%".into(), "signature that is not base64"),
        (|bundle| bundle["dsseEnvelope"]["payload"] = "e30".into(), "payload that is not base64"),
        (|bundle| bundle["dsseEnvelope"]["payload"] = " e30=".into(), "payload that is not base64"),
        (|bundle| bundle["dsseEnvelope"]["payload"] = "e30=\n".into(), "payload that is not base64"),
        (|bundle| bundle["dsseEnvelope"]["payload"] = "e31=".into(), "payload that is not base64"),
        (|bundle| bundle["dsseEnvelope"]["payload"] = "+_==".into(), "payload that is not base64"),
        (|bundle| bundle["dsseEnvelope"] = Value::Null, "empty"),
        (|bundle| bundle["messageSignature"] = json!({"signature": ""}), "two contents"),
        (
            |bundle| {
                bundle["dsseEnvelope"] = Value::Null;
                bundle["messageSignature"] = json!({"signature": ""});
            },
            "signature of a file",
        ),
    ];
    for (change, told) in changes {
        let mut bundle = bundle();
        change(&mut bundle);
        let why = opened(&bundle).unwrap_err();
        assert!(why.contains(told), "{bundle}: {why}");
    }
}

#[test]
fn bytes_that_are_no_bundle() {
    let text = bundle().to_string();
    for end in 0..text.len() {
        Envelope::parse(&text.as_bytes()[..end]).unwrap_err();
    }
    let twice =
        |key: &str, value: &str| text.replacen(&format!("\"{key}\":"), &format!("\"{key}\":{value},\"{key}\":"), 1);
    for (key, value) in
        [("payload", "\"\""), ("payloadType", "\"\""), ("sig", "\"\""), ("dsseEnvelope", "null"), ("mediaType", "\"\"")]
    {
        let why = Envelope::parse(twice(key, value).as_bytes()).unwrap_err();
        assert!(why.contains("duplicate"), "{key}: {why}");
    }
    for bytes in
        [&b"null"[..], b"{}", b"[]", b"\xff\xfe", format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)).as_bytes()]
    {
        Envelope::parse(bytes).unwrap_err();
    }
    // What is not looked at may be there.
    let more = text.replacen('{', "{\"later\": [{}], ", 1);
    assert!(Envelope::parse(more.as_bytes()).is_ok());
}

/// The format allows both alphabets; the bytes are what is signed.
#[test]
fn the_other_alphabet() {
    let mut bundle = bundle();
    for text in ["payload", "sig"] {
        let place = match text {
            "payload" => &mut bundle["dsseEnvelope"]["payload"],
            _ => &mut bundle["dsseEnvelope"]["signatures"][0]["sig"],
        };
        *place = place.as_str().unwrap().replace('+', "-").replace('/', "_").into();
    }
    assert_eq!(opened(&bundle), Ok(true));
}

#[test]
fn what_is_signed_tells_type_and_payload_apart() {
    assert_eq!(
        authenticated("http://example.com/HelloWorld", b"hello world"),
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    );
    assert_eq!(authenticated("", b""), b"DSSEv1 0  0 ");
}
