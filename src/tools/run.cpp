// SPDX-License-Identifier: Apache-2.0
#include "run.hpp"

#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>
#include <regex>
#include <sstream>
#include <string_view>
#include <terse/terse.hpp>

#include "command_line.hpp"
#include "interpose/settings.hpp"
#include "output.hpp"

namespace terse::tools {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;
using interpose::SettingInfo;
using interpose::variable_of;

constexpr int kCannotStart = 126;  // as shells have it
constexpr int kNotFound = 127;

/// The program cannot be started with the drop-in: why, in a sentence.
struct Refusal {
  int exit_code;
  std::string sentence;
};

std::string option_of(std::string_view setting) {
  std::string option(setting);
  std::replace(option.begin(), option.end(), '_', '-');
  return option;
}

po::options_description described() {
  po::options_description options;
  for (const SettingInfo& info : interpose::setting_infos()) {
    options.add_options()(option_of(info.name).c_str(), po::value<std::string>(), "");
  }
  options.add_options()("dry-run", "")("help,h", "");
  return options;
}

void print_help() {
  std::cout << "usage: mpirun -np P terse run [--SETTING VALUE...] [--dry-run] -- PROGRAM [ARGUMENT...]\n\n"
               "Runs an MPI program as it is, with its sums of MPI_FLOAT and MPI_DOUBLE by MPI_Allreduce "
               "compressed.\n"
               "Nothing is unless --codec or --config says so. A setting may also come as TERSE_SETTING.\n\n";
  for (const SettingInfo& info : interpose::setting_infos()) {
    std::string label = "  --" + option_of(info.name);
    label.resize(std::max<std::size_t>(label.size() + 1, 19), ' ');
    print_wrapped(label,
                  std::string(info.help) +
                      (info.default_value.empty() ? "" : " (" + std::string(info.default_value) + ")"));
  }
  print_wrapped("  --dry-run        ", "only says what would be run, and whether that works");
}

// Where the words of the program begin: behind "--", or at the first word that is no option's.
std::size_t program_at(const std::vector<std::string>& words) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--") return i + 1;
    if (words[i].empty() || words[i].front() != '-') return i;
    const bool value_follows = words[i] != "--dry-run" && words[i] != "--help" && words[i] != "-h" &&
                               words[i].find('=') == std::string::npos;
    if (value_follows) ++i;
  }
  return words.size();
}

bool is_program(const fs::path& path) { return fs::is_regular_file(path) && access(path.c_str(), X_OK) == 0; }

// As execvp finds it.
fs::path find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) {
    if (!fs::exists(name)) throw Refusal{kNotFound, "there is no program " + name};
    if (!is_program(name)) throw Refusal{kCannotStart, name + " is no program that can be started"};
    return name;
  }
  const char* path = std::getenv("PATH");
  std::istringstream folders(path != nullptr ? path : "/usr/local/bin:/usr/bin:/bin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    fs::path candidate = fs::path(folder.empty() ? "." : folder) / name;
    if (is_program(candidate)) return candidate;
  }
  throw Refusal{kNotFound, "there is no program " + name + " in any folder of PATH"};
}

fs::path drop_in_library() {
  const fs::path here = fs::read_symlink("/proc/self/exe").parent_path();
  const std::array<fs::path, 2> places = {
      here / TERSE_LIBRARY_FROM_TOOLS / TERSE_DROP_IN_FILE,
      here / ".." / TERSE_DROP_IN_FILE};  // installed, and in a build's tree
  for (const fs::path& place : places) {
    if (fs::exists(place)) return fs::canonical(place);
  }
  throw Refusal{kCannotStart, std::string("there is no ") + TERSE_DROP_IN_FILE +
                                  " where this program looks for it, " +
                                  places[0].lexically_normal().string() + ": install Terse whole"};
}

// What a program's file says of how it is to be loaded.
struct Loading {
  bool is_script = false;
  std::string loader{};  // the dynamic linker; empty: none
};

Loading loading_of(const fs::path& program) {
  std::ifstream file(program, std::ios::binary);
  std::array<char, 2> magic{};
  if (!file.read(magic.data(), magic.size()))
    throw Refusal{kCannotStart, program.string() + " cannot be read"};
  if (magic[0] == '#' && magic[1] == '!') return {.is_script = true};
  file.seekg(0);
  Elf64_Ehdr header{};
  file.read(reinterpret_cast<char*>(&header), sizeof header);
  if (!file || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0)
    return {.is_script = true};  // the shell knows
  if (header.e_ident[EI_CLASS] != ELFCLASS64) {
    throw Refusal{kCannotStart,
                  program.string() + " is a 32-bit program, and this Terse is a 64-bit library"};
  }
  for (std::uint64_t i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment{};
    file.seekg(static_cast<std::streamoff>(header.e_phoff + i * header.e_phentsize));
    file.read(reinterpret_cast<char*>(&segment), sizeof segment);
    if (!file || segment.p_type != PT_INTERP) continue;
    std::string loader(segment.p_filesz, '\0');
    file.seekg(static_cast<std::streamoff>(segment.p_offset));
    file.read(loader.data(), static_cast<std::streamsize>(loader.size()));
    return {.loader = loader.substr(0, loader.find('\0'))};
  }
  return {};
}

// A command line as exec takes it.
std::vector<char*> in_c(const std::vector<std::string>& words) {
  std::vector<char*> pointers(words.size() + 1, nullptr);
  for (std::size_t i = 0; i < words.size(); ++i) pointers[i] = const_cast<char*>(words[i].c_str());
  return pointers;
}

// What a command prints on its standard output; empty if it cannot be run.
std::string output_of(const std::vector<std::string>& command) {
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) return "";
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDOUT_FILENO);
    dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
    close(ends[0]);
    unsetenv("LD_PRELOAD");
    execv(command[0].c_str(), in_c(command).data());
    _exit(kNotFound);
  }
  close(ends[1]);
  std::string text;
  std::array<char, 4096> part{};
  for (ssize_t n = 0; child > 0 && (n = read(ends[0], part.data(), part.size())) > 0;) {
    text.append(part.data(), static_cast<std::size_t>(n));
  }
  close(ends[0]);
  if (child > 0) waitpid(child, nullptr, 0);
  return text;
}

// The MPI library that a file would be loaded with, by the dynamic linker's own word; empty: none so far.
fs::path mpi_of(const std::string& loader, const fs::path& file) {
  const std::string list = output_of({loader, "--list", fs::absolute(file).string()});
  static const std::regex kMpi(R"((?:^|\n)\s*lib(?:mpi|mpich|pmpi)\.so[.0-9]* => (.+) \(0x)");
  std::smatch found;
  if (!std::regex_search(list, found, kMpi)) return {};
  std::error_code ignored;
  const fs::path real = fs::canonical(found[1].str(), ignored);
  return ignored ? fs::path(found[1].str()) : real;
}

// Whether preloading has an effect on the program, and the right one.
void check_program(const fs::path& program, const fs::path& library) {
  struct stat status {};
  if (stat(program.c_str(), &status) == 0 && (status.st_mode & (S_ISUID | S_ISGID)) != 0) {
    throw Refusal{kCannotStart, program.string() +
                                    " runs with other rights than yours (set-user-ID), and such "
                                    "programs take no preloaded library"};
  }
  const Loading loading = loading_of(program);
  if (loading.is_script) return;
  if (loading.loader.empty()) {
    throw Refusal{kCannotStart, program.string() +
                                    " is linked statically, so no library can be put before its MPI: "
                                    "link it anew with " +
                                    std::string(TERSE_DROP_IN_FILE) + " before the MPI library"};
  }
  const fs::path theirs = mpi_of(loading.loader, program);
  const fs::path ours = mpi_of(loading.loader, library);
  if (!theirs.empty() && !ours.empty() && theirs != ours) {
    throw Refusal{kCannotStart, program.string() + " is linked to " + theirs.string() +
                                    ", and this Terse was built for " + ours.string() +
                                    ": take a Terse that was built for the program's MPI"};
  }
}

std::string preload(const fs::path& library) {
  const std::string path = library.string();
  if (path.find_first_of(": ") != std::string::npos) {
    throw Refusal{kCannotStart, "the path " + path +
                                    " has a space or a colon, which LD_PRELOAD takes for an end: "
                                    "install Terse elsewhere"};
  }
  const char* others = std::getenv("LD_PRELOAD");
  return others == nullptr || *others == '\0' ? path : path + ":" + others;
}

}  // namespace

int run_command(const std::vector<std::string>& arguments) {
  const std::size_t at = program_at(arguments);
  const auto cut = static_cast<std::ptrdiff_t>(at);
  std::vector<std::string> mine(arguments.begin(), arguments.begin() + cut);
  if (!mine.empty() && mine.back() == "--") mine.pop_back();
  const std::vector<std::string> words(arguments.begin() + cut, arguments.end());
  const po::variables_map values = parse_command_line("terse run", described(), mine);
  if (values.count("help") != 0) {
    print_help();
    return 0;
  }
  const bool has_rule = values.count("codec") != 0 || std::getenv("TERSE_CODEC") != nullptr;
  for (const SettingInfo& info : interpose::setting_infos()) {
    if (info.of_a_rule && !has_rule && values.count(option_of(info.name)) != 0) {
      throw UsageError("terse run: --" + option_of(info.name) +
                       " is of the rule that --codec makes: add --codec, or write it into the file's rules");
    }
  }
  if (words.empty())
    throw UsageError("terse run: the program is missing: terse run [--codec SPEC] -- PROGRAM ...");
  for (const SettingInfo& info : interpose::setting_infos()) {
    const std::string option = option_of(info.name);
    if (values.count(option) != 0) {
      setenv(variable_of(info.name).c_str(), values[option].as<std::string>().c_str(), 1);
    }
  }
  try {
    const fs::path program = find_program(words.front());
    const fs::path library = drop_in_library();
    check_program(program, library);
    setenv("LD_PRELOAD", preload(library).c_str(), 1);
    if (values.count("dry-run") != 0) {
      const interpose::Settings settings = interpose::read_settings();
      std::cout << "program  " << program.string() << "\npreload  " << library.string() << '\n';
      for (const SettingInfo& info : interpose::setting_infos()) {
        const std::string variable = variable_of(info.name);
        if (const char* value = std::getenv(variable.c_str()); value != nullptr && *value != '\0') {
          std::cout << "setting  " << variable << '=' << value << '\n';
        }
      }
      if (settings.rules.empty())
        std::cout << "no rule: nothing would be compressed (add --codec or --config)\n";
      for (const interpose::Rule& rule : settings.rules) {
        std::cout << "rule     " << rule.name << ": ";
        if (rule.passes) {
          std::cout << "its calls are passed on\n";
        } else {
          std::cout << get_option(rule.policy, "codec") << ", tensors of at least " << threshold(rule)
                    << " bytes\n";
        }
      }
      return 0;
    }
    execvp(program.c_str(), in_c(words).data());  // which also knows scripts that do not say for what
    throw Refusal{kCannotStart, program.string() + " cannot be started: " + std::strerror(errno)};
  } catch (const Refusal& refusal) {
    std::cerr << "terse run: " << refusal.sentence << '\n';
    return refusal.exit_code;
  } catch (const Error& error) {
    std::cerr << "terse run: " << error.what() << '\n';
    return kUsageExit;
  }
}

}  // namespace terse::tools
