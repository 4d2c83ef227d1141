"""TFRecord files of images, read without TensorFlow: the messages that they hold."""

import functools
from typing import Any


def bytes_feature(record: bytes, name: str) -> bytes:
    """One feature of a serialized `tf.train.Example`.

    Args:
        record: The serialized example.
        name: Of the feature.

    Returns:
        Its bytes; empty if there is no such feature.
    """
    try:
        example = _example_class().FromString(record)
    except Exception:  # not an example; protobuf's own error has moved between versions
        return b""
    values = example.features.feature[name].bytes_list.value
    return values[0] if values else b""


@functools.cache
def _example_class() -> Any:
    """The message `tf.train.Example`, as far as it holds bytes, without TensorFlow."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="llic_example.proto", package="llic")
    kinds = descriptor_pb2.FieldDescriptorProto

    def message(name: str, field: str, number: int, kind: str | None, repeated: bool = False):
        made = file.message_type.add(name=name)
        made.field.add(
            name=field,
            number=number,
            label=kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL,
            type=kinds.TYPE_MESSAGE if kind else kinds.TYPE_BYTES,
            type_name=f".llic.{kind}" if kind else None,
        )
        return made

    message("BytesList", "value", 1, None, repeated=True)
    message("Feature", "bytes_list", 1, "BytesList")
    features = message("Features", "feature", 1, "Features.FeatureEntry", repeated=True)
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=kinds.LABEL_OPTIONAL, type=kinds.TYPE_STRING)
    entry.field.add(
        name="value",
        number=2,
        label=kinds.LABEL_OPTIONAL,
        type=kinds.TYPE_MESSAGE,
        type_name=".llic.Feature",
    )
    message("Example", "features", 1, "Features")
    file.syntax = "proto3"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("llic.Example"))
