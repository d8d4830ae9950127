// SPDX-License-Identifier: Apache-2.0
//
// Near-duplicates are found, and never end up on both sides of the split.

#include "corpus.hpp"

#include <cstddef>
#include <cstdlib>
#include <iostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace charlm {
namespace {

int failures = 0;

void expect(bool good, const char* what) {
  if (good) return;
  std::cerr << "not so: " << what << std::endl;
  ++failures;
}

/// `words` words in a random order that is the same for the same `key`, and another one for another.
std::string prose(unsigned key, std::size_t words) {
  std::mt19937 random(key);
  std::string text;
  for (std::size_t i = 0; i < words; ++i) text += "word" + std::to_string(random() % 1000) + ' ';
  return text;
}

std::vector<Document> documents(std::vector<std::string> texts) {
  std::vector<Document> made;
  made.reserve(texts.size());
  for (std::string& text : texts) made.push_back({{}, std::move(text)});
  return made;
}

Corpus split_tenth(std::vector<Document> made) {
  group_near_duplicates(made);
  CorpusReport report;
  for (const Document& document : made) report.bytes += document.text.size();
  return split(made, 0.1, report);
}

/// Whether a third of the held-out text is in the training text.
bool leaks(const Corpus& corpus) {
  std::vector<Document> sides = documents({corpus.train, corpus.held_out});
  return group_near_duplicates(sides) == 1;
}

/// Between a text and another one of the same parts in reverse stands, for each part, a third that has it.
void finds_what_is_between_others() {
  std::string forwards;
  std::string backwards;
  std::vector<std::string> texts(1);
  for (unsigned part = 0; part < 10; ++part) {
    forwards += prose(part, 100);
    backwards.insert(0, prose(part, 100));
    texts.push_back(prose(part, 100) + prose(100 + part, 900));
  }
  texts.front() = forwards;
  texts.push_back(backwards);
  std::vector<Document> made = documents(texts);
  expect(group_near_duplicates(made) == 11, "two texts of the same parts are one group, the others one each");
  expect(made.front().group == made.back().group, "two texts of the same parts are of one group");
}

/// What thousands have in common is less than a third of each.
void keeps_licensed_files_apart() {
  constexpr std::size_t kFiles = 3000;
  std::vector<std::string> texts;
  for (unsigned i = 0; i < kFiles; ++i) texts.push_back(prose(0, 100) + prose(1 + i, 400));
  std::vector<Document> made = documents(texts);
  expect(group_near_duplicates(made) == kFiles, "files with the same licence are no near-duplicates");
}

/// More than are compared with each other.
void chains_many_revisions() {
  std::vector<std::string> texts;
  for (unsigned i = 0; i < 10 * kMostApart; ++i) texts.push_back(prose(0, 400) + prose(1 + i, 100));
  std::vector<Document> made = documents(texts);
  expect(group_near_duplicates(made) == 1, "many revisions of a text are one group");
}

void holds_out_whole_groups() {
  std::vector<std::string> texts;
  for (unsigned i = 0; i < 100; ++i) texts.push_back(prose(i % 50, 900) + prose(100 + i, 100));
  const Corpus corpus = split_tenth(documents(texts));
  expect(corpus.report.groups == 50 && corpus.report.held_out_groups > 0, "whole groups are held out");
  expect(!leaks(corpus), "no near-duplicate of a held-out group is trained on");
}

/// One text, another one, and a revision of the first, whose end is the end of all.
void holds_out_ends() {
  const std::string first = prose(0, 4000);
  const Corpus corpus = split_tenth(documents({first + prose(1, 200), prose(2, 4000), first}));
  expect(corpus.report.held_out_groups == 0 && corpus.report.held_out_files == 2, "two ends are held out");
  expect(corpus.report.near_duplicates == 1, "a revision is left out");
  expect(!corpus.held_out.empty() && !leaks(corpus), "no near-duplicate of a held-out end is trained on");
}

}  // namespace
}  // namespace charlm

int main() {
  charlm::finds_what_is_between_others();
  charlm::keeps_licensed_files_apart();
  charlm::chains_many_revisions();
  charlm::holds_out_whole_groups();
  charlm::holds_out_ends();
  return charlm::failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
