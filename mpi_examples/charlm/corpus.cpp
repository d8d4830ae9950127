// SPDX-License-Identifier: Apache-2.0
#include "corpus.hpp"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <numeric>
#include <ostream>
#include <string_view>
#include <system_error>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace charlm {
namespace {

namespace fs = std::filesystem;

/// FNV-1a, with the final mix of MurmurHash3 so that any of its bits may serve. The same on every machine.
std::uint64_t hash(std::string_view bytes) noexcept {
  std::uint64_t h = 0xcbf29ce484222325u;
  for (const char c : bytes) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  h = (h ^ (h >> 33)) * 0xff51afd7ed558ccdu;
  h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53u;
  return h ^ (h >> 33);
}

struct Candidate {
  fs::path path;
  std::uintmax_t bytes;
  bool named;  ///< on the command line, not found below a directory
};

std::vector<Candidate> find_files(const std::vector<fs::path>& paths) {
  std::vector<Candidate> found;
  for (const fs::path& path : paths) {
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    if (!fs::exists(status)) {
      throw CorpusError("--text " + path.string() +
                        ": there is no such file or directory, or it may not be read.");
    }
    if (fs::is_regular_file(status)) {
      found.push_back({path, fs::file_size(path, error), true});
    } else if (fs::is_directory(status)) {
      // A link that is named is followed (hence canonical), links below it are not.
      fs::recursive_directory_iterator entry(fs::canonical(path, error),
                                             fs::directory_options::skip_permission_denied, error);
      if (error) throw CorpusError("--text " + path.string() + ": " + error.message() + ".");
      for (; entry != fs::recursive_directory_iterator(); entry.increment(error)) {
        if (fs::is_regular_file(entry->symlink_status(error))) {
          const std::uintmax_t bytes = entry->file_size(error);
          if (!error) found.push_back({entry->path(), bytes, false});
        }
      }
      if (error) throw CorpusError("--text " + path.string() + ": " + error.message() + ".");
    } else {
      throw CorpusError("--text " + path.string() +
                        " is neither a regular file nor a directory: name one of those.");
    }
  }
  return found;
}

/// The text of a file, empty where it could not be read.
std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  return in.bad() ? std::string() : text;
}

/// The hashes of a sample of the text's runs of five words, sorted: those whose hash is a multiple of
/// kSampling, so that the same run is in every text's sample or in none.
std::vector<std::uint64_t> sample_runs(std::string_view text) {
  constexpr std::size_t kWords = 5;
  constexpr std::uint64_t kSampling = 4;
  std::vector<std::uint64_t> words;
  constexpr std::string_view kBlank = " \t\r\n\f\v";
  for (std::size_t begin = text.find_first_not_of(kBlank); begin != std::string_view::npos;) {
    const std::size_t end = std::min(text.find_first_of(kBlank, begin), text.size());
    words.push_back(hash(text.substr(begin, end - begin)));
    begin = text.find_first_not_of(kBlank, end);
  }
  std::vector<std::uint64_t> runs;
  for (std::size_t i = 0; i + kWords <= words.size(); ++i) {
    const std::uint64_t run = hash({reinterpret_cast<const char*>(&words[i]), kWords * sizeof(words[i])});
    if (run % kSampling == 0) runs.push_back(run);
  }
  std::sort(runs.begin(), runs.end());
  runs.erase(std::unique(runs.begin(), runs.end()), runs.end());
  return runs;
}

/// Disjoint sets of 0 ... n-1.
class Sets {
 public:
  explicit Sets(std::size_t n) : parent_(n) { std::iota(parent_.begin(), parent_.end(), std::size_t{0}); }
  std::size_t find(std::size_t i) {
    while (parent_[i] != i) i = parent_[i] = parent_[parent_[i]];
    return i;
  }
  /// The smaller number stands for the set, so that it does not matter in which order sets are joined.
  void join(std::size_t a, std::size_t b) {
    std::tie(a, b) = std::minmax({find(a), find(b)});
    parent_[b] = a;
  }

 private:
  std::vector<std::size_t> parent_;
};

void append(std::string& text, std::string_view file) {
  text += file;
  text += kFileSeparator;
}

}  // namespace

std::vector<Document> gather(const std::vector<fs::path>& paths, std::size_t max_bytes,
                             CorpusReport& report) {
  std::vector<Candidate> files = find_files(paths);
  std::sort(files.begin(), files.end(), [](const Candidate& a, const Candidate& b) {
    return std::tie(a.path.native(), b.named) < std::tie(b.path.native(), a.named);
  });
  const auto same_path = [](const Candidate& a, const Candidate& b) { return a.path == b.path; };
  files.erase(std::unique(files.begin(), files.end(), same_path), files.end());

  std::vector<std::pair<std::uint64_t, std::size_t>> order;
  for (std::size_t i = 0; i < files.size(); ++i) order.emplace_back(hash(files[i].path.native()), i);
  std::sort(order.begin(), order.end());
  std::vector<std::size_t> chosen;
  std::uintmax_t budget = max_bytes;
  for (const auto& [key, i] : order) {
    if (files[i].bytes > budget) {
      ++report.over_limit;
    } else {
      budget -= files[i].bytes;
      chosen.push_back(i);
    }
  }
  std::sort(chosen.begin(), chosen.end());

  std::vector<Document> documents;
  std::unordered_set<std::string_view> seen;  // of texts in `documents`, which must therefore never move
  documents.reserve(chosen.size());
  for (const std::size_t i : chosen) {
    if (files[i].bytes == 0) continue;
    std::string text = read(files[i].path);
    if (text.empty()) {
      if (files[i].named) {
        throw CorpusError("--text " + files[i].path.string() + " could not be read: check its permissions.");
      }
      ++report.unreadable;
    } else if (text.find(kFileSeparator) != std::string::npos) {
      ++report.binary;
    } else if (seen.contains(text)) {
      ++report.copies;
    } else {
      documents.push_back({files[i].path, std::move(text)});
      seen.insert(documents.back().text);
    }
  }
  report.files = documents.size();
  for (const Document& document : documents) report.bytes += document.text.size();
  return documents;
}

std::size_t group_near_duplicates(std::vector<Document>& documents) {
  std::vector<std::size_t> runs;                               // of each document, how many
  std::vector<std::pair<std::uint64_t, std::uint64_t>> where;  // run, document
  for (std::size_t i = 0; i < documents.size(); ++i) {
    const std::vector<std::uint64_t> sample = sample_runs(documents[i].text);
    runs.push_back(sample.size());
    for (const std::uint64_t run : sample) where.emplace_back(run, i);
  }
  std::sort(where.begin(), where.end());

  // The limit keeps the work linear where thousands of files begin with the same licence.
  std::unordered_map<std::uint64_t, std::size_t> shared;  // runs, by the pair of documents that have them
  for (std::size_t i = 0; i < where.size(); ++i) {
    for (std::size_t j = i + 1; j < where.size() && j <= i + kMostApart; ++j) {
      if (where[i].first != where[j].first) break;
      ++shared[where[i].second << 32 | where[j].second];
    }
  }
  Sets sets(documents.size());
  for (const auto& [pair, count] : shared) {
    const std::size_t a = pair >> 32;
    const std::size_t b = pair & 0xffffffffu;
    if (count * 3 >= std::min(runs[a], runs[b])) sets.join(a, b);
  }

  std::size_t groups = 0;
  for (std::size_t i = 0; i < documents.size(); ++i) {
    const std::size_t first = sets.find(i);  // at most i
    documents[i].group = first == i ? groups++ : documents[first].group;
  }
  return groups;
}

Corpus split(const std::vector<Document>& documents, double fraction, CorpusReport report) {
  constexpr std::size_t kFewestGroups = 5;
  Corpus corpus;
  std::vector<std::size_t> group_bytes;
  std::vector<std::pair<std::uint64_t, std::size_t>> order;  // hash of the group's first text, group
  for (const Document& document : documents) {
    if (document.group == group_bytes.size()) {
      group_bytes.push_back(0);
      order.emplace_back(hash(document.text), document.group);
    }
    group_bytes[document.group] += document.text.size();
  }
  std::sort(order.begin(), order.end());
  report.groups = group_bytes.size();

  const auto wanted = fraction * static_cast<double>(report.bytes);
  std::unordered_set<std::size_t> held_out;
  std::size_t held_out_bytes = 0;
  for (const auto& [key, group] : order) {
    if (static_cast<double>(held_out_bytes + group_bytes[group]) <= 1.25 * wanted) {
      held_out.insert(group);
      held_out_bytes += group_bytes[group];
    }
    if (static_cast<double>(held_out_bytes) >= wanted) break;
  }

  if (report.groups >= kFewestGroups && static_cast<double>(held_out_bytes) >= 0.5 * wanted) {
    for (const Document& document : documents) {
      const bool out = held_out.contains(document.group);
      append(out ? corpus.held_out : corpus.train, document.text);
      report.held_out_files += out ? 1 : 0;
    }
    report.held_out_groups = held_out.size();
    report.held_out_bytes = held_out_bytes;
  } else {
    // What is cut off one file may be in the others of its group, which are therefore used on neither side.
    std::vector<const Document*> largest(report.groups);
    for (const Document& document : documents) {
      const Document*& most = largest[document.group];
      if (most == nullptr || document.text.size() > most->text.size()) most = &document;
    }
    for (const Document* document : largest) {
      const std::string_view text = document->text;
      const auto end = static_cast<std::size_t>(fraction * static_cast<double>(text.size()));
      const std::size_t gap = end / 10;
      append(corpus.train, text.substr(0, text.size() - end - gap));
      if (end == 0) continue;
      append(corpus.held_out, text.substr(text.size() - end));
      ++report.held_out_files;
      report.held_out_bytes += end;
      report.gap_bytes += gap;
    }
    report.near_duplicates = documents.size() - report.groups;
  }
  corpus.report = report;
  return corpus;
}

std::ostream& operator<<(std::ostream& out, const CorpusReport& report) {
  out << report.files << (report.files == 1 ? " file, " : " files, ") << report.bytes << " bytes, "
      << report.groups << (report.groups == 1 ? " group" : " groups") << " of near-duplicates; held out: ";
  const std::string files =
      std::to_string(report.held_out_files) + (report.held_out_files == 1 ? " file, " : " files, ");
  if (report.held_out_groups > 0) {
    out << files << report.held_out_bytes << " bytes, " << report.held_out_groups << " groups";
  } else {
    out << "the end of " << files << report.held_out_bytes << " bytes after gaps of " << report.gap_bytes
        << " (too few or too uneven groups to hold out whole ones)";
  }
  const std::pair<std::size_t, const char*> left_out[] = {
      {report.copies, "copies"},
      {report.near_duplicates, "near-duplicates of larger files"},
      {report.binary, "binary"},
      {report.unreadable, "unreadable"},
      {report.over_limit, "over --max-megabytes"}};
  const char* before = "; left out: ";
  for (const auto& [count, why] : left_out) {
    if (count == 0) continue;
    out << before << count << ' ' << why;
    before = ", ";
  }
  return out;
}

}  // namespace charlm
