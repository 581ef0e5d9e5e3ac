"""For type checkers, which do not follow setuptools' mapping of the folder `callbacks/`.

It is not installed.
"""

from callbacks import Deletion as Deletion
from callbacks import LibraGradAudit as LibraGradAudit
from callbacks import Pictures as Pictures
from callbacks import Samples as Samples
from callbacks import Schedule as Schedule
from callbacks import ShortcutAlarm as ShortcutAlarm
from callbacks import unpack_batch as unpack_batch
