# A configuration as a test reads it: nix-instantiate --eval --strict --json tests/nixos --arg module ./x.nix
{ module
, opnix ? "/usr"
, lib ? import ./lib.nix
, persistence ? false
}:
let
  package = { outPath = opnix; type = "derivation"; name = "opnix"; };
  pkgs = import ./pkgs.nix { inherit lib; opnix = package; };
  impermanence.options.environment.persistence = lib.mkOption {
    type = lib.types.attrsOf (lib.types.submodule {
      options = lib.genAttrs [ "directories" "files" ] (_: lib.mkOption { type = lib.types.listOf lib.types.anything; default = [ ]; });
    });
    default = { };
  };
  system = lib.evalModules {
    modules = [ ./nixos.nix ../../nixos-module module ] ++ lib.optional persistence impermanence;
    specialArgs = { inherit pkgs; };
  };
  inherit (system) config;
  cfg = config.services.onepassword-secrets;
in
{
  inherit (config) warnings;
  inherit (config.system.build) faults units;
  inherit (cfg) secretPaths;
  mapping = (import ../../nixos-module/mapping.nix { inherit lib cfg; inherit (cfg) outputDir; inherit (config.systemd) services; }).content;
  groups = config.users.groups;
  tmpfiles = config.systemd.tmpfiles.rules;
  persistence = config.environment.persistence or { };
  # To be built: the system's files, units laid out as NixOS does.
  tree = pkgs.runCommand "tree" { } ''
    units=$out/etc/systemd/system
    mkdir -p $units
    for package in ${toString config.systemd.packages}; do
      cp -R --no-preserve=mode $package/lib/systemd/system/. $units
    done
    ${lib.concatStrings (lib.mapAttrsToList
      (name: unit: ''
        if [ -e $units/${name} ]; then
          install -D -m 0644 ${pkgs.writeText name unit.text} $units/${name}.d/overrides.conf
        else
          install -m 0644 ${pkgs.writeText name unit.text} $units/${name}
        fi
        ${lib.concatMapStrings (target: "mkdir -p $units/${target}.wants; ln -sfn ../${name} $units/${target}.wants/${name}\n") unit.wantedBy}
        ${lib.concatMapStrings (alias: "ln -sfn ${name} $units/${alias}\n") unit.aliases}
      '')
      config.system.build.units)}
    ${lib.concatStrings (lib.mapAttrsToList (name: file: "install -D -m 0644 ${file.source} $out/etc/${name}\n") config.environment.etc)}
    install -D -m 0644 ${pkgs.writeText "tmpfiles" (lib.concatMapStrings (rule: rule + "\n") config.systemd.tmpfiles.rules)} $out/etc/tmpfiles.d/nixos.conf
    # What impermanence does, in short.
    ${lib.concatStrings (lib.concatLists (lib.mapAttrsToList
      (root: kept: map
        (entry: let directory = entry.directory or entry; in ''
          mkdir -p "$out${directory}"
          mount=$(systemd-escape --path --suffix=mount ${directory})
          printf '[Unit]\nDefaultDependencies=no\nBefore=local-fs.target\n[Mount]\nWhat=${root}${directory}\nWhere=${directory}\nType=none\nOptions=bind\n' >"$units/$mount"
          mkdir -p $units/local-fs.target.wants
          ln -s "../$mount" "$units/local-fs.target.wants/$mount"
        '')
        kept.directories)
      (config.environment.persistence or { })))}
  '';
}
