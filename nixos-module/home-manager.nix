# The home-manager module: the same for the units of one user, by the two services of that user's own service manager.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkIf mkOption types;
  cfg = config.programs.onepassword-secrets;
  entry = import ./entry.nix { inherit lib; };
  home = config.home.homeDirectory;
  # In user units %t is $XDG_RUNTIME_DIR.
  socket = "%t/opnix/creds.sock";
  # Relative paths are in memory, and linked to from the same place below the home directory, where OpNix has its files.
  belowHome = _: one: one // { path = if one.path == null then null else lib.removePrefix "${home}/" one.path; };
  services = lib.mapAttrs (_: credentials: {
    onepassword = { environment = { }; environmentTemplate = null; restartOnChange = false; inherit credentials; };
  }) cfg.units;
  mapping = import ./mapping.nix {
    inherit lib services;
    outputDir = null;
    linkRoot = home;
    cfg = cfg // {
      secrets = lib.mapAttrs belowHome cfg.secrets;
      templates = lib.mapAttrs belowHome cfg.templates;
    };
  };
  inStore = path: lib.hasPrefix builtins.storeDir "${toString path}" || builtins.isPath path;
  check = import ./checked.nix {
    inherit pkgs;
    inherit (cfg) package;
    inherit (mapping) content;
    others = builtins.filter inStore cfg.configFiles;
  };

  entries = lib.mapAttrs belowHome (cfg.secrets // cfg.templates);
  paths = lib.filterAttrs (_: path: path != null) (lib.mapAttrs mapping.pathOf entries);
  isAbsolute = lib.hasPrefix "/";
  onDisk = lib.filterAttrs (_: path: isAbsolute path && !lib.hasPrefix "/run/" path) paths;
  escaped = builtins.replaceStrings [ "%" ] [ "%%" ];
  # A file in the place of the link may be what OpNix wrote there once.
  tests = path:
    if isAbsolute path then [ "AssertPathExists=${escaped path}" ]
    else [ "AssertPathExists=%t/secrets/${escaped path}" "AssertPathIsSymbolicLink=${escaped "${home}/${path}"}" ];
  serviceNames = one: if builtins.isList one.services then one.services else builtins.attrNames one.services;
  # What each service reads, and does not start without.
  readers = lib.zipAttrsWith (_: lib.concatLists) (
    lib.mapAttrsToList
      (name: path: lib.genAttrs (map (lib.removeSuffix ".service") (serviceNames entries.${name}))
        (_: lib.optionals (!entries.${name}.optional) (tests path)))
      paths
    ++ [ (lib.genAttrs ofIntegration (_: [ ])) ]
  );
  ofIntegration = if cfg.systemdIntegration.enable or true then cfg.systemdIntegration.services or [ ] else [ ];

  # The unit files that opnix has for users, as home-manager has units: by section and key.
  shipped = file:
    let
      text = builtins.replaceStrings
        [ "/usr/bin/opnix" "sh -c" "systemctl --user" "grep -q" "%E/opnix/token" ]
        [ "${cfg.package}/bin/opnix" "${pkgs.runtimeShell} -c" "${config.systemd.user.systemctlPath} --user" "${pkgs.gnugrep}/bin/grep -q" (escaped (toString cfg.tokenFile)) ]
        (builtins.readFile file);
      read = found: line:
        let
          section = builtins.match "[[](.*)]" line;
          setting = builtins.match "([A-Za-z]+)=(.*)" line;
          key = builtins.head setting;
        in
        if section != null then found // { section = builtins.head section; }
        else if setting == null then found
        else found // {
          unit = found.unit // {
            ${found.section} = found.unit.${found.section} or { } // {
              ${key} = found.unit.${found.section}.${key} or [ ] ++ [ (builtins.elemAt setting 1) ];
            };
          };
        };
      lists = (builtins.foldl' read { unit = { }; } (lib.splitString "\n" text)).unit;
    in
    lib.mapAttrs (_: lib.mapAttrs (key: values: if key == "Description" then builtins.head values else values)) lists;
  # home-manager stops what changed, and starts it again: that would refuse who waits, or close the sockets for a moment.
  switched = method: unit: unit // { Unit = unit.Unit // { X-SwitchMethod = method; }; };
  reloaded = unit: unit // { Unit = unit.Unit // { X-Reload-Triggers = map toString configs; }; };
  configs = [ check.file ] ++ cfg.configFiles;
in
{
  options.programs.onepassword-secrets = import ./options.nix {
    inherit lib pkgs;
    package = pkgs.callPackage ./package.nix { };
  } // {
    units = mkOption {
      type = types.attrsOf (types.attrsOf (types.coercedTo types.str (reference: { inherit reference; })
        (types.submodule entry.credential)));
      default = { };
      example = { backup.key = "op://Personal/Backup/password"; };
      description = "Credentials of your own units, by unit (without `.service`) and credential.";
    };
  };

  config = mkIf cfg.enable {
    programs.onepassword-secrets.secretPaths = lib.mapAttrs (_: path: if isAbsolute path then path else "${home}/${path}") paths;

    warnings = check.warnings
    ++ lib.mapAttrsToList
      (name: path: "programs.onepassword-secrets: ${path}, the path of ${name}, is not below the home directory: the file is there itself, in plain text on the disk, and not a link into memory.")
      onDisk;

    home.packages = [ cfg.package ];

    xdg.configFile = {
      "opnix/secrets.json".source = check.file;
    } // builtins.listToAttrs (lib.imap0
      (number: file: {
        name = "opnix/secrets.d/${toString number}-${lib.removeSuffix ".json" (builtins.unsafeDiscardStringContext (baseNameOf file))}.json";
        value.source = file;
      })
      cfg.configFiles)
    // lib.mapAttrs'
      (name: tests: {
        name = "systemd/user/${name}.service.d/opnix.conf";
        value.text = ''
          [Unit]
          Wants=opnix-mirror.service
          After=opnix-mirror.service
          ${lib.concatMapStrings (test: "${test}\n") tests}'';
      })
      readers;

    systemd.user.sockets = {
      opnix = switched "keep-old" (shipped ../systemd/user/opnix.socket);
      opnix-control = switched "keep-old" (shipped ../systemd/user/opnix-control.socket);
    };
    systemd.user.services = {
      opnix = reloaded (switched "restart" (lib.recursiveUpdate (shipped ../systemd/user/opnix.service) (shipped ../systemd/opnix.service.d/20-keep-store.conf)));
      opnix-mirror = reloaded (switched "restart" (shipped ../systemd/user/opnix-mirror.service));
      # For units that wait for OpNix's: done when all files are there.
      opnix-secrets = {
        Unit = { Description = "Files with secrets from 1Password"; Wants = [ "opnix-mirror.service" ]; After = [ "opnix-mirror.service" ]; };
        Service = { Type = "oneshot"; RemainAfterExit = true; ExecStart = "${config.systemd.user.systemctlPath} --user reload opnix-mirror.service"; };
      };
    } // lib.mapAttrs (_: credentials: {
      Unit = {
        Wants = [ "opnix.socket" ];
        # A switch reloads it at the same time, and then it is to have what this unit is to get.
        After = [ "opnix.socket" "opnix.service" ];
        # A switch restarts a unit whose text differs, and another reference alone would leave it the same.
        X-Opnix-Secrets = builtins.hashString "sha256" (builtins.unsafeDiscardStringContext (builtins.toJSON
          (lib.mapAttrs (_: one: { inherit (one) reference template templateFile; }) credentials)));
      };
      Service.LoadCredential = map (id: "${id}:${socket}") (builtins.attrNames credentials);
    }) cfg.units;
  };
}
