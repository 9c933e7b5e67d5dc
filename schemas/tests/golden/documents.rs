//! Jobs and the generation registry.

use schemas::*;

#[test]
fn a_job_keeps_its_stored_field_names() {
    let job = r#"{"id":"01935b1e-0000-7000-8000-000000000001","revision":3,"kind":"replay_dead_letter","letter":"3.1042","resume":true,"priority":"high","asked_by":"otto","created_at_ms":5,"changed_at_ms":6,"state":"running","worker":"two","began_at_ms":7,"cancelling":false,"failed":[{"worker":"one","began_at_ms":5,"failed_at_ms":6,"error":"no luck"}],"progress":{"done":1,"of":2,"line":"half way"},"checkpoint":"{}"}"#;
    assert_eq!(schemas::job::Job::from_json(job).unwrap().to_json(), job);
}

#[test]
fn a_generation_registry_keeps_its_stored_field_names() {
    let registry = r#"{"revision":4,"term":2,"current":{"generation":2,"log":{"number":0,"topic":"submissions","partitions":12}},"building":{"record":{"generation":3,"log":{"number":3,"topic":"submissions-3","partitions":24}},"dry_run":false,"begun_at_ms":5,"job":null,"seal":{"opening":{"since_ms":6}}},"previous":{"generation":1,"log":{"number":0,"topic":"submissions","partitions":12}},"retired":[],"next":4}"#;
    assert_eq!(GenerationRegistry::from_json(registry).unwrap().to_json(), registry);
}
