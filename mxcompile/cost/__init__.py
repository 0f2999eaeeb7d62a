"""What a model costs in silicon, in three layers that never mix: counts, unit costs, and their combination.

- `workload` counts what each node does, as exact expressions in the model's symbolic dimensions.
- `unit_cost` reads what a unit takes in area and energy from data files, `engine` what an array of units looks like.
- `plan` chooses the units, `estimate` combines all, `totals` sums up, `compare` asks for other formats; `report`,
  `table` and `html` show it. docs/cost-model.md has every formula and every constant.
"""
