"""Types of the names that `dcamt/__init__.py` imports when they are first used."""

from .api.evaluation import evaluate as evaluate
from .api.outputs import write_report as write_report
from .api.outputs import write_segmentation as write_segmentation
from .api.outputs import write_surface as write_surface
from .api.segmentation import SegmentedScan as SegmentedScan
from .api.segmentation import Segmenter as Segmenter
from .api.segmentation import segment as segment
from .api.training import TrainedRun as TrainedRun
from .api.training import train as train
from .errors import Cancelled as Cancelled
from .errors import DCAMTError as DCAMTError
from .errors import InputError as InputError
from .errors import OutputError as OutputError
from .geometry import Grid as Grid
from .geometry import Region as Region
from .io.dicom_stacks import ScanChoice as ScanChoice
from .io.readers import read_labelmap as read_labelmap
from .io.readers import read_scan as read_scan
from .io.writers import write_labelmap as write_labelmap
from .metrics.evaluation import Evaluation as Evaluation
from .volume import Labelmap as Labelmap
from .volume import Volume as Volume

__version__: str
