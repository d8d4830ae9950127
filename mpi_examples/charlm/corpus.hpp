// SPDX-License-Identifier: Apache-2.0
#pragma once

// The text that train_charlm learns from, and the part of it that is held out.

#include <cstddef>
#include <filesystem>
#include <iosfwd>
#include <stdexcept>
#include <string>
#include <vector>

namespace charlm {

/// What stands between two files in a text. No text file contains it: with a zero byte it counts as binary.
inline constexpr char kFileSeparator = '\0';

/// what() is a sentence that says what is wrong with the text, where, and what to do.
class CorpusError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Document {
  std::filesystem::path path;
  std::string text;
  std::size_t group = 0;  ///< files with the same number are near-duplicates of each other
};

/// What was found, and how it was divided.
struct CorpusReport {
  std::size_t files = 0;  ///< read as text, copies left out
  std::size_t bytes = 0;
  std::size_t groups = 0;
  std::size_t held_out_files = 0;
  std::size_t held_out_groups = 0;  ///< 0 where the ends of files are held out
  std::size_t held_out_bytes = 0;
  std::size_t gap_bytes = 0;  ///< before those ends, used on neither side
  // Left out:
  std::size_t copies = 0;           ///< the same bytes as another file
  std::size_t near_duplicates = 0;  ///< of a larger file whose end is held out
  std::size_t binary = 0;           ///< contain a zero byte
  std::size_t unreadable = 0;       ///< below a directory; a file that is named must be readable
  std::size_t over_limit = 0;
};
std::ostream& operator<<(std::ostream& out, const CorpusReport& report);

struct Corpus {
  std::string train;
  std::string held_out;
  CorpusReport report;
};

/// Reads the files `paths` and all regular files below the directories among them, in the order of their
/// paths. Symbolic links below a directory are not followed. Left out are empty files, binary files and
/// copies. Where there are more than `max_bytes`, the files whose paths have the smallest hashes are read: a
/// sample that is the same each time. Errors: CorpusError.
std::vector<Document> gather(const std::vector<std::filesystem::path>& paths, std::size_t max_bytes,
                             CorpusReport& report);

/// Among the files that have a run, those at most so far apart in their list are compared.
inline constexpr std::size_t kMostApart = 32;

/// Numbers the groups of near-duplicates and returns how many there are. Two files are near-duplicates where
/// at least a third of the smaller one's runs of five words occur in the other, by a sample of a quarter of
/// the runs; so are files that a chain of such pairs links. Of a run in more than kMostApart + 1 files (a
/// licence's, say) only those at most kMostApart apart in the list of these are compared: files that are like
/// each other in little else are found where they are that close, or by a chain.
std::size_t group_near_duplicates(std::vector<Document>& documents);

/// Holds out about `fraction` of the bytes: whole groups, chosen by a hash of their text. Where the groups
/// are too few or too uneven for that, the end of each group's largest file after a gap; the group's other
/// files are left out. So two near-duplicates are never on different sides.
Corpus split(const std::vector<Document>& documents, double fraction, CorpusReport report);

}  // namespace charlm
