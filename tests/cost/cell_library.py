"""A cell library of three cells whose figures are round, and netlists of them."""

import json
from pathlib import Path
from typing import Any

from mxcompile.cost.liberty import Library, read_library

TEXT = """
library (toy) { /* a comment; with marks { */
  time_unit : "1ns"; voltage_unit : "1V"; leakage_power_unit : "1nW";
  capacitive_load_unit (1, pf);
  nom_voltage : 2; nom_temperature : 25;
  lu_table_template (by_slew) {
    variable_1 : input_net_transition; variable_2 : total_output_net_capacitance;
    index_1 ("0, 1"); index_2 ("0, 0.1, 0.2");
  }
  lu_table_template (by_load) {
    variable_1 : total_output_net_capacitance; variable_2 : input_net_transition;
    index_1 ("0, 0.1, 0.2"); index_2 ("0, 1");
  }
  power_lut_template (by_slew_alone) { variable_1 : input_transition_time; index_1 ("0, 1"); }
  lu_table_template (setup) {
    variable_1 : related_pin_transition; variable_2 : constrained_pin_transition;
    index_1 ("0, 1"); index_2 ("0, 1");
  }
  cell (INV) {
    area : 2; cell_leakage_power : 3;
    pin (A) { direction : input; capacitance : 0.010; }
    pin (Y) { direction : output; function : "!A";
      internal_power () { related_pin : "A";
        rise_power (scalar) { values ("0.005"); }
        fall_power (scalar) { values ("0.003"); }
      }
      timing () { related_pin : "A"; timing_sense : negative_unate;
        cell_rise (by_slew) { values ("1, 2, 3", "1, 2, 3"); }
        cell_fall (by_load) { values ("4, 4", "5, 5", "6, 6"); }
        rise_transition (scalar) { values ("0.5"); }
        fall_transition (scalar) { values ("0.25"); }
      }
    }
  }
  cell (AND) {
    area : 3; cell_leakage_power : 4;
    pin (A) { direction : input; capacitance : 0.020; }
    pin (B) { direction : input; capacitance : 0.030; }
    pin (Y) { direction : output; function : "A & B"; }
  }
  cell (DFF) {
    area : 5; cell_leakage_power : 7;
    ff (IQ, IQN) { next_state : "D"; clocked_on : "CK"; }
    pin (D) { direction : input; capacitance : 0.040;
      internal_power () { when : "CK";
        rise_power (by_slew_alone) { values ("0.001, 0.001"); }
        fall_power (by_slew_alone) { values ("0.003, 0.003"); }
      }
      internal_power () { when : "!CK";
        rise_power (scalar) { values ("9"); }
        fall_power (scalar) { values ("9"); }
      }
      timing () { related_pin : "CK"; timing_type : setup_rising;
        rise_constraint (setup) { values ("0.1, 1.1", "0.2, 1.2"); }
        fall_constraint (setup) { values ("0.3, 1.3", "0.4, 1.4"); }
      }
    }
    pin (CK) { direction : input; clock : true; capacitance : 0.050;
      internal_power () { when : "D & Q";
        rise_power (scalar) { values ("0.001"); }
        fall_power (scalar) { values ("0.002"); }
      }
      internal_power () { when : "!D & !Q";
        rise_power (scalar) { values ("0.003"); }
        fall_power (scalar) { values ("0.004"); }
      }
      internal_power () { when : "D & !Q";
        rise_power (scalar) { values ("0"); }
        fall_power (scalar) { values ("0.006"); }
      }
      internal_power () { when : "!D & Q";
        rise_power (scalar) { values ("0"); }
        fall_power (scalar) { values ("0.008"); }
      }
    }
    pin (Q) { direction : output; function : "IQ";
      internal_power () { related_pin : "CK";
        rise_power (scalar) { values ("0.010"); }
        fall_power (scalar) { values ("0.012"); }
      }
      timing () { related_pin : "CK"; timing_type : rising_edge;
        cell_rise (scalar) { values ("0.75"); }
        cell_fall (scalar) { values ("0.5"); }
        rise_transition (scalar) { values ("0.5"); }
        fall_transition (scalar) { values ("0.5"); }
      }
    }
    pin (QN) { direction : output; function : "IQN";
      internal_power () { related_pin : "CK";
        rise_power (scalar) { values ("0.020"); }
        fall_power (scalar) { values ("0.022"); }
      }
    }
  }
  cell (DFFR) {
    area : 6;
    ff (IQ, IQN) { next_state : "D"; clocked_on : "CK"; clear : "!RN"; }
    pin (D) { direction : input; capacitance : 0.040; }
    pin (CK) { direction : input; capacitance : 0.050; }
    pin (RN) { direction : input; capacitance : 0.050; }
    pin (Q) { direction : output; function : "IQ"; }
  }
}
"""


def toy_library(folder: Path, text: str = TEXT) -> Library:
    """The library, read from a file."""
    path = folder / "toy.lib"
    path.write_text(text, "utf-8")
    return read_library(path)


def netlist_file(
    folder: Path, ports: dict[str, tuple[str, list[Any]]], cells: dict[str, tuple[str, dict[str, Any]]]
) -> Path:
    """Writes a module ``top`` as yosys does: ports are (direction, bits), cells are (type, bit of each pin)."""
    module = {
        "ports": {name: {"direction": way, "bits": bits} for name, (way, bits) in ports.items()},
        "cells": {
            name: {"type": kind, "connections": {pin: [bit] for pin, bit in pins.items()}}
            for name, (kind, pins) in cells.items()
        },
    }
    path = folder / "top.json"
    path.write_text(json.dumps({"modules": {"top": module}}), "utf-8")
    return path
