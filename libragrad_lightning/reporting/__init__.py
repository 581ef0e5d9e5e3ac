"""Where results go: pictures, tables and texts, through whatever loggers a Trainer has."""

from libragrad_lightning.reporting.charts import RuleSetRuns, announce_charts
from libragrad_lightning.reporting.coverage import write_coverage
from libragrad_lightning.reporting.extremes import Extremes
from libragrad_lightning.reporting.findings import Findings, Shown
from libragrad_lightning.reporting.history_table import history_table, write_history
from libragrad_lightning.reporting.page import AuditPage
from libragrad_lightning.reporting.panels import DrawnPanel, PanelDrawer, Pictures
from libragrad_lightning.reporting.sinks import (
    CometSink,
    FileSink,
    MLFlowSink,
    Sink,
    TensorBoardSink,
    WandbSink,
    logger_step,
    trainer_sinks,
    unwritable_folder,
    write_images,
    write_page,
)
from libragrad_lightning.reporting.strips import Strips
from libragrad_lightning.reporting.summary import print_heading, print_summary, summary_table
from libragrad_lightning.tables import TableRows

__all__ = [
    "AuditPage",
    "CometSink",
    "DrawnPanel",
    "Extremes",
    "FileSink",
    "Findings",
    "MLFlowSink",
    "PanelDrawer",
    "Pictures",
    "RuleSetRuns",
    "Shown",
    "Sink",
    "Strips",
    "TableRows",
    "TensorBoardSink",
    "WandbSink",
    "announce_charts",
    "history_table",
    "logger_step",
    "print_heading",
    "print_summary",
    "summary_table",
    "trainer_sinks",
    "unwritable_folder",
    "write_coverage",
    "write_history",
    "write_images",
    "write_page",
]
