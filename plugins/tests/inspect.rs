//! What `gst-inspect-1.0` shows of the built plugin: texts for a person, and no secret.

#![allow(clippy::unwrap_used)]

#[path = "../../tests/did_not_run.rs"]
mod did_not_run;
mod support;

use std::{collections::BTreeMap, path::PathBuf, process::Command};

use did_not_run::did_not_run;
use gst::prelude::*;

const ELEMENTS: [(&str, &[&str]); 9] = [
    ("e2eedemux", &["meeting", "stats"]),
    ("e2eemux", &["stats"]),
    ("e2eeseal", &["format", "meeting", "stats", "track"]),
    ("e2eeopen", &["max-pixels", "meeting", "stats"]),
    (
        "meetingkey",
        &[
            "agent",
            "epoch",
            "key-file",
            "loopback",
            "meeting",
            "participants",
            "passphrase-file",
            "security-code",
            "state",
            "wait",
        ],
    ),
    ("meetingsink", &["agent", "meeting", "stats", "sync"]),
    ("meetingsrc", &["agent", "latency", "max-pixels", "meeting", "participant", "stats", "track"]),
    ("rtpsframepay", &[]),
    ("rtpsframedepay", &["stats"]),
];

#[test]
fn each_element_has_exactly_these_properties_and_explains_them() {
    support::init();
    for (name, expected) in ELEMENTS {
        let element = gst::ElementFactory::make(name).build().unwrap();
        let mut own = BTreeMap::new();
        for property in element.list_properties() {
            // What base classes have they explain themselves.
            if property.owner_type() == element.type_() {
                assert!(
                    property.blurb().is_some_and(|blurb| blurb.len() > 15),
                    "{name}: {}",
                    property.name()
                );
                own.insert(property.name().to_owned(), property);
            }
        }
        assert_eq!(own.keys().map(String::as_str).collect::<Vec<_>>(), expected, "{name}");
        let factory = element.factory().unwrap();
        assert!(factory.metadata("description").unwrap().len() > 80);
    }
}

#[test]
fn the_opener_is_what_autopluggers_look_for() {
    support::init();
    let factory = gst::ElementFactory::find("e2eeopen").unwrap();
    assert_eq!(factory.rank(), gst::Rank::PRIMARY);
    assert!(factory.metadata("klass").unwrap().contains("Decryptor"));
    let sink = factory
        .static_pad_templates()
        .into_iter()
        .find(|t| t.direction() == gst::PadDirection::Sink)
        .unwrap();
    assert_eq!(sink.caps().to_string(), "application/x-sframe");
    assert_eq!(gst::ElementFactory::find("e2eeseal").unwrap().rank(), gst::Rank::NONE);
    let demuxer = gst::ElementFactory::find("e2eedemux").unwrap();
    assert_eq!((demuxer.rank(), demuxer.metadata("klass")), (gst::Rank::PRIMARY, Some("Codec/Demuxer")));
}

#[test]
fn the_rtp_pair_is_placed_by_hand_and_takes_no_plain_frames() {
    support::init();
    for (name, klass) in
        [("rtpsframepay", "Codec/Payloader/Network/RTP"), ("rtpsframedepay", "Codec/Depayloader/Network/RTP")]
    {
        let factory = gst::ElementFactory::find(name).unwrap();
        // A rank would have autopluggers take it for any H.264.
        assert_eq!((factory.rank(), factory.metadata("klass").unwrap()), (gst::Rank::NONE, klass));
        for template in factory.static_pad_templates() {
            let sealed = (name == "rtpsframepay") == (template.direction() == gst::PadDirection::Sink);
            let expected = if sealed { "application/x-sframe" } else { "application/x-rtp" };
            assert!(template.caps().iter().all(|structure| structure.name() == expected), "{template:?}");
        }
    }
    // As `gst-inspect-1.0` shows it, so that a change of what goes in and out is seen.
    let sealed = gst::ElementFactory::find("rtpsframepay").unwrap();
    let sink = sealed.static_pad_templates().into_iter().find(|t| t.direction() == gst::PadDirection::Sink);
    assert_eq!(
        sink.unwrap().caps().iter().map(|structure| structure.to_string()).collect::<Vec<_>>(),
        [
            "video/x-h264, stream-format=(string)byte-stream, alignment=(string)au",
            "video/x-h265, stream-format=(string)byte-stream, alignment=(string)au",
            "video/x-vp8",
            "video/x-vp9",
            "video/x-av1, stream-format=(string)obu-stream, alignment=(string)tu",
            "image/jpeg",
            "audio/x-opus, channel-mapping-family=(int)0",
            "audio/mpeg, mpegversion=(int)1",
            "meta/x-klv, parsed=(boolean)true",
        ]
        .map(|plain| {
            let (name, fields) = plain.split_once(", ").unwrap_or((plain, ""));
            let fields = if fields.is_empty() { String::new() } else { format!("{fields}, ") };
            format!("application/x-sframe, {fields}original-media-type=(string){name};")
        })
    );
}

#[test]
fn the_device_provider_is_what_monitors_look_for() {
    support::init();
    let factory = gst::DeviceProviderFactory::find("meetingdeviceprovider").unwrap();
    assert!(factory.rank() > gst::Rank::NONE);
    for classes in ["Source", "Video/Source", "Audio/Source", "Source/Network"] {
        assert!(factory.has_classes(Some(classes)), "{classes}");
    }
    assert!(!factory.has_classes(Some("Sink")));
    assert!(factory.metadata("description").unwrap().len() > 60);
    let provider = factory.get().unwrap();
    assert!(provider.can_monitor());
    let properties = provider.list_properties();
    let own = properties.iter().filter(|property| !["name", "parent"].contains(&property.name()));
    assert_eq!(own.map(|property| property.name()).collect::<Vec<_>>(), ["agent"]);
}

#[test]
fn nothing_but_sealed_frames_links_to_the_sink() {
    support::init();
    for source in ["x264enc", "vp8enc", "opusenc", "e2eeopen"] {
        let source = gst::ElementFactory::make(source).build().unwrap();
        let sink = gst::ElementFactory::make("meetingsink").build().unwrap();
        let pipeline = gst::Pipeline::new();
        pipeline.add_many([&source, &sink]).unwrap();
        let linked = source.link(&sink).is_ok();
        // An opener can give anything as far as templates go; caps stop it then.
        assert_eq!(linked, source.factory().unwrap().name() == "e2eeopen");
    }
}

#[test]
fn an_invitation_is_no_uri() {
    support::init();
    let src = gst::ElementFactory::make("meetingsrc").build().unwrap();
    let src = src.dynamic_cast::<gst::URIHandler>().unwrap();
    let id = "0a".repeat(16);
    src.set_uri(&format!("meeting://{id}/Bob/video")).unwrap();
    assert_eq!(src.uri().unwrap(), format!("meeting://{id}/Bob/video"));
    let error = src.set_uri(&format!("meeting://relay.example/{id}#topsecret")).unwrap_err();
    assert!(!error.to_string().contains("topsecret"));
    // As players give it, with an empty host; names are percent-encoded.
    src.set_uri(&format!("meeting:///{id}/Bob%20B./video")).unwrap();
    assert_eq!(src.uri().unwrap(), format!("meeting://{id}/Bob%20B./video"));
    let made = gst::Element::make_from_uri(gst::URIType::Src, &format!("meeting:///{id}"), None).unwrap();
    assert_eq!(made.factory().unwrap().name(), "meetingsrc");
    assert!(error.to_string().contains("meeting-agent join"));
}

#[test]
fn the_loader_takes_the_built_file() {
    // target/debug/deps/inspect-... -> target/debug
    let exe = std::env::current_exe().unwrap();
    let deps: PathBuf = exe.parent().unwrap().to_owned();
    let built = [deps.parent().unwrap(), &deps].into_iter().find(|dir| dir.join("libgste2ee.so").exists());
    let (Some(folder), Ok(_)) = (built, Command::new("gst-inspect-1.0").arg("--version").output()) else {
        did_not_run("no built plugin, or no gst-inspect-1.0");
        return;
    };
    let registry = tempfile::tempdir().unwrap();
    // Of a device provider it says no more than its plugin's list does.
    let plugin = ("e2ee", &["meetingdeviceprovider: Meeting device provider"][..]);
    for (name, properties) in ELEMENTS.into_iter().chain([plugin]) {
        let output = Command::new("gst-inspect-1.0")
            .arg(name)
            .env("GST_PLUGIN_PATH", folder)
            .env("GST_REGISTRY", registry.path().join("registry.bin"))
            .env("G_DEBUG", "fatal-warnings")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(
            text.contains("Apache 2.0") && properties.iter().all(|property| text.contains(property)),
            "{text}"
        );
    }
}
