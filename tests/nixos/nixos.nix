# As much of NixOS as the module here meets: options, and what becomes of them under /etc. In this place's own words;
# units are rendered as NixOS renders them.
{ lib, config, pkgs, ... }:
let
  inherit (lib) concatMapStrings concatStrings mapAttrsToList mkOption optionalString types;
  option = type: default: mkOption { inherit type default; };
  text = option types.str "";
  list = option (types.listOf types.str) [ ];
  flag = option types.bool;
  section = option (types.attrsOf types.setting) { };

  unit = {
    options = {
      description = text;
      wantedBy = list;
      requiredBy = list;
      wants = list;
      requires = list;
      after = list;
      before = list;
      aliases = list;
      unitConfig = section;
      restartTriggers = option (types.listOf types.anything) [ ];
      reloadTriggers = option (types.listOf types.anything) [ ];
    };
  };
  service = {
    options = {
      environment = option (types.attrsOf types.str) { };
      path = option (types.listOf types.anything) [ ];
      serviceConfig = section;
      enable = flag true;
      stopIfChanged = flag true;
      restartIfChanged = flag true;
      script = text;
    };
  };
  socket.options = { socketConfig = section; listenStreams = list; };

  word = value: if value == true then "true" else if value == false then "false" else toString value;
  lines = settings: concatStrings (builtins.concatLists (mapAttrsToList
    (name: value: map (one: "${name}=${word one}\n") (if builtins.isList value then value else [ value ]))
    settings));
  joined = name: words: lib.optionalAttrs (words != [ ]) { ${name} = toString words; };
  head = name: unit: "[Unit]\n" + lines (
    joined "Requires" unit.requires // joined "Wants" unit.wants // joined "After" unit.after // joined "Before" unit.before
    // lib.optionalAttrs (unit.restartTriggers != [ ]) { X-Restart-Triggers = pkgs.writeText "X-Restart-Triggers-${name}" (toString unit.restartTriggers); }
    // lib.optionalAttrs (unit.reloadTriggers != [ ]) { X-Reload-Triggers = pkgs.writeText "X-Reload-Triggers-${name}" (toString unit.reloadTriggers); }
    // lib.optionalAttrs (unit.description != "") { Description = unit.description; }
    // unit.unitConfig
  );
  ofService = name: unit: head name unit + "\n[Service]\n"
    + concatStrings (mapAttrsToList (variable: value: "Environment=${builtins.toJSON "${variable}=${value}"}\n")
      ({ PATH = lib.makeBinPath (unit.path ++ [ pkgs.coreutils pkgs.findutils pkgs.gnugrep pkgs.gnused config.systemd.package ]); } // unit.environment))
    + optionalString (!unit.restartIfChanged) "X-RestartIfChanged=false\n"
    + optionalString (!unit.stopIfChanged) "X-StopIfChanged=false\n"
    + lines (unit.serviceConfig // lib.optionalAttrs (unit.script != "") {
      ExecStart = "/bin/sh ${pkgs.writeText "${name}-start" "set -e\n${unit.script}"}";
    })
    + install unit;
  ofSocket = name: unit: head name unit + "\n[Socket]\n" + lines unit.socketConfig
    + concatMapStrings (address: "ListenStream=${address}\n") unit.listenStreams
    + install unit;
  install = unit: optionalString (unit.wantedBy != [ ]) "\n[Install]\nWantedBy=${toString unit.wantedBy}\n";
in
{
  options = {
    assertions = option (types.listOf types.anything) [ ];
    warnings = list;
    fileSystems = option (types.attrsOf types.anything) { };
    environment.systemPackages = option (types.listOf types.package) [ ];
    environment.etc = option (types.attrsOf (types.submodule { options = { source = option (types.nullOr types.path) null; text = text; mode = text; }; })) { };
    users.users = option (types.attrsOf types.anything) { };
    users.groups = option (types.attrsOf (types.submodule { options.members = list; })) { };
    systemd.package = option types.anything { outPath = "/usr"; version = "252"; };
    systemd.packages = option (types.listOf types.package) [ ];
    systemd.tmpfiles.rules = list;
    systemd.services = option (types.attrsOf (types.submodule { imports = [ unit service ]; })) { };
    systemd.sockets = option (types.attrsOf (types.submodule { imports = [ unit socket ]; })) { };
    systemd.timers = option (types.attrsOf (types.submodule { imports = [ unit { options.timerConfig = section; } ]; })) { };
    boot.loader.grub.device = text;
    services.caddy.enable = flag false;
    system.stateVersion = text;
    system.checks = option (types.listOf types.package) [ ];
    system.build = lib.genAttrs [ "units" "faults" "toplevel" ] (_: mkOption { type = types.anything; });
  };

  config.systemd.services = lib.mkIf config.services.caddy.enable { caddy.serviceConfig.ExecStart = "/usr/bin/caddy"; };
  config.system.build = {
    # The units, by their names: their text, and the links that NixOS makes.
    units = lib.mapAttrs (_: unit: unit) (builtins.listToAttrs (
      mapAttrsToList (name: unit: { name = "${name}.service"; value = { text = ofService name unit; inherit (unit) wantedBy requiredBy aliases; }; }) config.systemd.services
      ++ mapAttrsToList (name: unit: { name = "${name}.socket"; value = { text = ofSocket name unit; inherit (unit) wantedBy requiredBy aliases; }; }) config.systemd.sockets
      ++ mapAttrsToList (name: unit: { name = "${name}.timer"; value = { text = head name unit + "\n[Timer]\n" + lines unit.timerConfig; inherit (unit) wantedBy requiredBy aliases; }; }) config.systemd.timers
    ));
    faults = map (one: one.message) (builtins.filter (one: !one.assertion) config.assertions);
    toplevel =
      if config.system.build.faults != [ ] then throw (lib.concatMapStringsSep "\n" (one: one) config.system.build.faults)
      else pkgs.writeText "system" (builtins.toJSON (lib.mapAttrs (_: unit: unit.text) config.system.build.units));
  };
}
