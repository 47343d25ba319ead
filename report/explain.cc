// SPDX-License-Identifier: Apache-2.0
#include "report/explain.h"

#include <fmt/format.h>

#include "base/json_writer.h"

namespace imgfsck {
namespace {

std::string_view Meaning(Severity severity) {
  switch (severity) {
    case Severity::kCorruption:
      return "damage: guest data is wrong or at risk, or the image does not open";
    case Severity::kLeak:
      return "space in the file is taken and nothing refers to it";
    case Severity::kWarning:
      return "something to look at; nothing is broken yet";
    case Severity::kInfo:
      return "legal, for your information; never repaired";
  }
  return "";
}

std::string_view Meaning(RepairClass repair) {
  switch (repair) {
    case RepairClass::kSafe:
      return "--repair does it and changes no byte that the guest can read today";
    case RepairClass::kAll:
      return "only --repair=all does it, and says which guest ranges it costs";
    case RepairClass::kNone:
      return "nothing is done about it unasked";
  }
  return "";
}

std::string_view Meaning(Effect effect) {
  switch (effect) {
    case Effect::kNone:
      return "its data is not affected";
    case Effect::kWrong:
      return "it may read wrong data there";
    case Effect::kStale:
      return "it reads older data there";
    case Effect::kZero:
      return "it reads zeros there";
    case Effect::kUnreadable:
      return "it cannot read there, or the image does not open";
  }
  return "";
}

}  // namespace

void WriteExplanation(const ProblemInfo& problem, TextWriter& out) {
  out.Put(fmt::format("{}: {}.\n\n", problem.code, problem.what));
  auto line = [&](std::string_view label, std::string_view word, std::string_view meaning) {
    out.Put(fmt::format("  {:<10}{}: {}\n", label, word, meaning));
  };
  line("severity", ToText(problem.severity), Meaning(problem.severity));
  line("guest", ToText(problem.effect), Meaning(problem.effect));
  line("repair", ToText(problem.repair), Meaning(problem.repair));
  out.Put(fmt::format("  {:<10}{}\n", "does", problem.mend));
  out.Put(fmt::format("  {:<10}{}\n", "can cost", problem.cost));
}

void WriteProblemList(TextWriter& out) {
  for (const ProblemInfo& problem : AllProblems()) {
    out.Put(fmt::format("{:<40} {:<10} {:<4} {}\n", problem.code, ToText(problem.severity),
                        ToText(problem.repair), problem.what));
  }
}

void WriteProblemListJson(TextWriter& out) {
  for (const ProblemInfo& problem : AllProblems()) {
    JsonWriter json(out);
    json.BeginObject();
    json.Member("code", problem.code);
    json.Member("id", static_cast<uint64_t>(problem.problem));
    json.Member("severity", ToText(problem.severity));
    json.Member("repair", ToText(problem.repair));
    json.Member("effect", ToText(problem.effect));
    json.Member("what", problem.what);
    json.Member("mend", problem.mend);
    json.Member("cost", problem.cost);
    json.EndObject();
    out.Put('\n');
  }
}

}  // namespace imgfsck
