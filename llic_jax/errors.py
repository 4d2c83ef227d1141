"""The one base of all errors that tell a user what to change."""


class LlicError(Exception):
    """Bad input, a missing file, something not installed.

    The message says what was found, what was expected and what to do. Command lines print it
    without a traceback.
    """


class ConfigError(LlicError, ValueError):
    """A config whose fields do not go together."""


class CurveError(LlicError, ValueError):
    """Points that make no rate-distortion curve, or two curves that cannot be compared."""


class PillowError(LlicError, OSError):
    """A `.llic` file that Pillow cannot open or decode, or an image that it cannot save as one."""


class ImageFileError(LlicError, ValueError):
    """A file that cannot be read as an image, or not without loss; the message says what to do."""


class BitstreamError(LlicError, ValueError):
    """Bytes that cannot be read as an image; the subclasses say why."""


class ArgumentTypeError(LlicError, TypeError):
    """An argument of a type that cannot be used."""


class NotLlicError(BitstreamError):
    """These bytes are no `.llic` file."""


class VersionError(BitstreamError):
    """The file is of a version that this software does not know."""


class TruncatedError(BitstreamError):
    """The file ends too early."""


class CorruptError(BitstreamError):
    """The file's bytes have changed since it was written."""


class ImageSizeError(BitstreamError):
    """The header claims an image of no or of absurd size, or of more than the reader allows."""


class UnknownSectionError(BitstreamError):
    """The file has a section that must be understood and that this software does not know."""


class CoderUnavailableError(LlicError, RuntimeError):
    """The library of this range coder is not installed, or does not load."""


class InputError(LlicError, ValueError):
    """An argument that no image can be compressed with."""


class LatentError(InputError):
    """An image that the networks make a latent of that cannot be coded."""


class WrongModelError(BitstreamError):
    """The file was written with other weights."""


class UnknownModelError(WrongModelError):
    """The file was written with a model that is not installed; the message says how to get it."""


class UnknownCoderError(BitstreamError):
    """The file was written with a range coder that this software does not have."""


class WalkError(LlicError, RuntimeError):
    """A loop over an entropy model's steps that does not fill each step once."""


class ForkError(LlicError, RuntimeError):
    """A process that was forked after JAX had started, in which JAX would hang."""


class ReleaseError(LlicError, RuntimeError):
    """A released folder is incomplete or damaged."""


class RegistryError(LlicError, RuntimeError):
    """The list of released models is damaged, or models do not fit into it."""


class DecoderOnlyError(LlicError, RuntimeError):
    """Encoding was asked of a model of which only the decoder's half is installed."""


class CardError(LlicError, ValueError):
    """Figures that cannot stand in a model card."""


class DataError(LlicError, ValueError):
    """The data that was asked for is not there or is not what it should be."""


class TrainingError(LlicError, RuntimeError):
    """Training cannot go on."""


class OutOfTimeError(TrainingError):
    """The time of a run was over before its first step, or its steps are too slow for it."""


class CheckpointError(LlicError, RuntimeError):
    """A checkpoint is missing, corrupt, or of another model."""


class OutputError(LlicError, OSError):
    """A folder that cannot take the results."""


class TrialError(LlicError, ValueError):
    """Codecs that cannot be measured together."""


class WorkerError(LlicError, RuntimeError):
    """A process that coded images has died."""


class PipelineError(LlicError, RuntimeError):
    """Work on many photographs that cannot be begun, continued or finished."""


class BaselineError(LlicError, ValueError):
    """A codec that is not known, or whose library is not installed."""


class ResultsError(LlicError, RuntimeError):
    """A file of results that cannot be continued."""


class InspectionError(LlicError, ValueError):
    """Images that cannot be looked at together."""


class NoMetricsError(LlicError, ValueError):
    """The folder holds no training run's figures."""


class JsonLinesError(LlicError, ValueError):
    """A whole line that holds no JSON object."""


class ColourError(LlicError, ValueError):
    """Colours that no profile of a photograph can describe."""
