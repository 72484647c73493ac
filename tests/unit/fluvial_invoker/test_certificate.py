from fluvial.manifest import DeploymentSpec, InstanceSettings
from fluvial_invoker.instance.certificate import BirthCertificate


def test_certificate_survives_the_wire() -> None:
    certificate = BirthCertificate(
        instance="ins_1",
        deployment=DeploymentSpec(
            deployment="dpl_1",
            app="demo",
            bundle="b",
            layer="",
            entrypoint="main:app",
            workflows=("main",),
            instance=InstanceSettings(max_concurrency=3),
            environment={"A": "1"},
        ),
        bundle_path="/b",
        layer_path="",
        runtime_path="/r",
        grace_seconds=2.5,
    )

    assert BirthCertificate.decode(certificate.encode()) == certificate
