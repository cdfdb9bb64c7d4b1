// SPDX-License-Identifier: Apache-2.0
#include "partitioner/problem.hpp"

#include "partitioner/cost_model.hpp"
#include "runtime/schedule/generators.hpp"

namespace lockstep {
namespace {

Schedule schedule_of_choice(const CostModel& model, const PlanChoice& choice) {
  model.check(choice);
  return make_schedule(choice.schedule, {model.workers(), choice.virtual_stages, model.problem().micro_batches});
}

}  // namespace

Costs costs_of(const PlanProblem& problem, const PlanChoice& choice) {
  const CostModel model(problem);
  return model.costs(choice, schedule_of_choice(model, choice));
}

Program program_of(const PlanProblem& problem, const PlanChoice& choice) {
  const CostModel model(problem);
  return model.program(choice, schedule_of_choice(model, choice));
}

Simulation judge(const PlanProblem& problem, const PlanChoice& choice) {
  const CostModel model(problem);
  const Schedule schedule = schedule_of_choice(model, choice);
  return simulate(model.program(choice, schedule), model.costs(choice, schedule), 0);
}

}  // namespace lockstep
