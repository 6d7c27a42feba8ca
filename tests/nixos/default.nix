# A configuration as a test reads it: nix-instantiate --eval --strict --json tests/nixos --arg module ./x.nix
{ module ? { }
, home ? { }
, opnix ? "/usr"
, stage ? ""
, lib ? import ./lib.nix
, persistence ? false
, machine ? "x86_64-linux"
}@arguments:
let
  package = { outPath = opnix; type = "derivation"; name = "opnix"; };
  pkgs = import ./pkgs.nix { inherit lib stage; opnix = package; system = machine; };
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
  # The same for a machine whose programs do not run here.
  elsewhere = (import ./. (arguments // { machine = "aarch64-linux"; })).warnings;
  inherit (config.system.build) faults units;
  inherit (cfg) secretPaths;
  mapping = (import ../../nixos-module/mapping.nix { inherit lib cfg; inherit (cfg) outputDir; inherit (config.systemd) services; }).content;
  groups = config.users.groups;
  tmpfiles = config.systemd.tmpfiles.rules;
  persistence = config.environment.persistence or { };
  # The home-manager module, with as much of home-manager as it meets.
  home =
    let
      any = lib.mkOption { type = lib.types.anything; default = { }; };
      evaluated = lib.evalModules {
        modules = [
          {
            options.warnings = lib.mkOption { type = lib.types.listOf lib.types.str; default = [ ]; };
            options.home = { homeDirectory = lib.mkOption { type = lib.types.str; default = "/home/alice"; }; packages = any; };
            options.xdg.configFile = any;
            options.systemd.user = { services = any; sockets = any; systemctlPath = lib.mkOption { type = lib.types.str; default = "${pkgs.systemd}/bin/systemctl"; }; };
          }
          ../../nixos-module/home-manager.nix
          home
        ];
        specialArgs = { inherit pkgs; };
      };
    in
    rec {
      inherit (evaluated.config.systemd.user) services sockets;
      inherit (evaluated.config) warnings;
      inherit (evaluated.config.programs.onepassword-secrets) secretPaths;
      inherit (evaluated.config.xdg) configFile;
      # To be built: the same, with what it refers to.
      units = pkgs.writeText "units.json" (builtins.toJSON { inherit services sockets configFile; });
    };
  # Each option, for the documentation: what it is for, its type, default and example.
  options =
    let
      render = value: if value._type or "" == "literalExpression" then value.text else builtins.toJSON value;
      walk = path: options: lib.concatLists (lib.mapAttrsToList
        (name: option:
          let here = path ++ [ name ]; in
          if !lib.isOption option then walk here option
          else [ {
            name = lib.concatStringsSep "." here;
            type = option.type.name;
            description = option.description or "";
            default = if option ? defaultText then render option.defaultText else if option ? default then render option.default else null;
            example = if option ? example then render option.example else null;
          } ] ++ (if option.type.tree == null then [ ] else walk here option.type.tree))
        options);
    in
    walk [ "services" "onepassword-secrets" ] system.options.services.onepassword-secrets
    ++ builtins.filter (one: lib.hasInfix ".onepassword." one.name)
      (walk [ "systemd" "services" ] system.options.systemd.services.type.tree);
  # To be built: the system's files, units laid out as NixOS does.
  tree = pkgs.runCommand "tree" { } ''
    : ${toString config.system.checks}
    units=$out/etc/systemd/system
    mkdir -p $units
    for package in ${toString config.systemd.packages}; do
      [ -e $package ] || package=${stage}$package
      for place in $package/etc $package/lib; do
        if [ -d $place/systemd/system ]; then cp -R --no-preserve=mode $place/systemd/system/. $units; fi
      done
    done
    ${lib.concatStrings (lib.mapAttrsToList
      (name: unit: ''
        if [ -e $units/${name} ]; then
          install -D -m 0644 ${pkgs.writeText "unit" unit.text} $units/${name}.d/overrides.conf
        else
          install -m 0644 ${pkgs.writeText "unit" unit.text} $units/${name}
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
