# The NixOS module: `services.onepassword-secrets`, and `systemd.services.<name>.onepassword`.
{ config, lib, options, pkgs, ... }:
let
  inherit (lib) concatMap hasPrefix hasSuffix mkIf mkOption optional optionalAttrs types;
  cfg = config.services.onepassword-secrets;

  mapping = import ./mapping.nix {
    inherit lib cfg;
    inherit (cfg) outputDir;
    inherit (config.systemd) services;
  };
  inStore = path: hasPrefix builtins.storeDir "${toString path}" || builtins.isPath path;
  check = import ./checked.nix {
    inherit pkgs;
    inherit (cfg) package;
    inherit (mapping) content;
    others = builtins.filter inStore cfg.configFiles;
  };
  checked = check.file;

  entries = builtins.attrValues cfg.secrets ++ builtins.attrValues cfg.templates;
  serviceNames = entry: if builtins.isList entry.services then entry.services else builtins.attrNames entry.services;
  service = name: lib.removeSuffix ".service" name;

  # What each service reads, and does not start without.
  readers = builtins.foldl'
    (found: one: found // { ${one.service} = found.${one.service} or [ ] ++ one.paths; })
    { }
    (concatMap
      (file: map (name: { service = service name; paths = optional (!file.entry.optional) (builtins.replaceStrings [ "%" ] [ "%%" ] file.path); }) (serviceNames file.entry))
      (builtins.filter (file: file.path != null)
        (lib.mapAttrsToList (name: entry: { inherit entry; path = mapping.pathOf name entry; }) (cfg.secrets // cfg.templates)))
    ++ map (name: { service = service name; paths = [ ]; }) ofIntegration);
  ofIntegration = if cfg.systemdIntegration.enable or true then cfg.systemdIntegration.services or [ ] else [ ];
  # A unit of a package, or an instance, is told by a drop-in: systemd.services would make a unit of it.
  toldByDropIn = lib.filterAttrs (name: _: !(config.systemd.services ? ${name})) readers;
  dropIn = name: paths: pkgs.writeTextDir "lib/systemd/system/${name}.service.d/opnix.conf" ''
    [Unit]
    Wants=opnix-mirror.service
    After=opnix-mirror.service
    ${lib.concatMapStrings (path: "AssertPathExists=${path}\n") paths}'';

  # A start that was refused is tried again, not so often that systemd gives up. systemd takes no oneshot with this, and of a
  # unit that comes from a package it is not known here whether it is one: those are left to opnix-mirror.service.
  isRetried = unit: unit.onepassword.credentials != { }
    && unit.serviceConfig ? ExecStart && (unit.serviceConfig.Type or "simple") != "oneshot";
  isLimited = unit: (unit.unitConfig or { }) ? StartLimitIntervalSec || (unit.unitConfig or { }) ? StartLimitBurst;
  retry = name: unit: pkgs.writeTextDir "lib/systemd/system/${name}.service.d/opnix-retry.conf" ''
    ${lib.optionalString (!isLimited unit) "[Unit]\nStartLimitIntervalSec=0\n"}[Service]
    RestartForceExitStatus=243
    ${lib.optionalString (!(unit.serviceConfig ? RestartSec)) "RestartSec=5s\n"}'';

  isTold = name: config.systemd.services ? ${name} || config.systemd.services ? "${template name}";
  template = name: builtins.head (builtins.match "([^@]*@?).*" name);
  named = unit: if builtins.isString unit then unit else unit.unit or "";
  strangers = lib.unique (builtins.filter (name: !isTold name)
    (map (unit: service (lib.removeSuffix "*" (lib.removeSuffix "*.service" (named unit))))
      (builtins.filter (unit: hasSuffix ".service" (named unit)) (concatMap (entry: entry.units) entries))
    ++ map service (concatMap serviceNames entries ++ ofIntegration)));
  # Whether a package brings them is known when the packages are there.
  areKnown = pkgs.runCommand "opnix-units" { } ''
    for name in ${lib.concatMapStringsSep " " (name: "'${name}'") strangers}; do
      found=
      for place in ${lib.concatMapStringsSep " " (package: "${package}/etc/systemd/system ${package}/lib/systemd/system") config.systemd.packages} \
        ${config.systemd.package}/example/systemd/system; do
        case $name in *@*) instance=''${name%%@*}@.service ;; *) instance=$name.service ;; esac
        if [ -e "$place/$name.service" ] || [ -e "$place/$instance" ]; then found=1; fi
      done
      [ -n "$found" ] || {
        echo "services.onepassword-secrets: there is no systemd.services.\"$name\", and no package has such a unit: check the name in \`units\` and \`services\`." >&2
        exit 1
      }
    done
    mkdir $out
  '';

  ofUnits = lib.concatLists (lib.mapAttrsToList
    (name: unit: lib.mapAttrsToList (id: credential: { inherit name id credential; }) unit.onepassword.credentials)
    config.systemd.services);
  references = lib.mapAttrsToList (name: entry: { where = "services.onepassword-secrets.secrets.${name}"; inherit (entry) reference; }) cfg.secrets
    ++ map (one: { where = "systemd.services.${one.name}.onepassword.credentials.${one.id}"; inherit (one.credential) reference; })
      (builtins.filter (one: one.credential.reference != null) ofUnits)
    ++ lib.concatLists (lib.mapAttrsToList
      (name: unit: lib.mapAttrsToList (variable: reference: { where = "systemd.services.${name}.onepassword.environment.${variable}"; inherit reference; }) unit.onepassword.environment)
      config.systemd.services);
  paths = map (file: file.path) mapping.files;
  twice = lib.unique (builtins.filter (path: lib.count (other: other == path) paths > 1) paths);
  # "\0", 16 digits, "/unit/", the unit, "/", the credential: systemd's address holds 107 bytes.
  length = one: 1 + 16 + 6 + builtins.stringLength "${one.name}.service" + 1 + builtins.stringLength one.id;
  systemdIs = lib.versionAtLeast (config.systemd.package.version or "0");
  refreshes = systemdIs "260";
  hasReport = cfg.metrics.enable && systemdIs "262";
  outside = builtins.filter (path: hasPrefix "/etc/" path || hasPrefix "/usr/" path) paths;
  wordless = lib.filterAttrs (_: path: path != null && builtins.match ".*[{][^}]*[}].*" path != null)
    (lib.mapAttrs mapping.pathOf (lib.filterAttrs (_: entry: entry.path != null || cfg.pathTemplate != null) (cfg.secrets // cfg.templates)));
  isOurs = path: path != null && (builtins.elem (toString path) paths || hasPrefix "${mapping.memory}/" (toString path));
  passwords = lib.filterAttrs (_: user: isOurs (user.hashedPasswordFile or null)) config.users.users;
  # OpNix's own units, and what stands for them.
  renamed = {
    opnix-secrets = "`systemd.services.opnix-mirror`, which writes files; what asks 1Password (a proxy, limits of memory) is `systemd.services.opnix`";
    opnix-secrets-poll = "`services.onepassword-secrets.refresh`";
    opnix-secrets-restart = "`services` of each secret";
  };
  overridden = builtins.filter (name: config.systemd.services ? ${name}) (builtins.attrNames renamed);
  isSealed = cfg.sealedTokenFile != null;
  # A path of Nix is copied to the store, where a sealed token may be.
  token =
    if !isSealed then toString cfg.tokenFile
    else if builtins.isPath cfg.sealedTokenFile then "${cfg.sealedTokenFile}"
    else toString cfg.sealedTokenFile;
  tokenDirectory = dirOf token;
  isBelow = directory: path: path == directory || hasPrefix "${directory}/" path;
  tokenIsKept = inStore token || cfg.persistence.root != null
    && builtins.any (kept: isBelow kept token) ([ cfg.persistence.root ] ++ cfg.persistence.directories);
  # To keep one of these as a whole, with a mode of its own, would hide what else is in it: there it is the file alone.
  isShared = builtins.elem tokenDirectory [ "/" "/etc" "/home" "/opt" "/root" "/srv" "/usr" "/var" "/var/lib" ];
  isMemory = (config.fileSystems."/".fsType or "") == "tmpfs";
in
{
  options.services.onepassword-secrets = import ./options.nix {
    inherit lib pkgs;
    package = pkgs.callPackage ./package.nix { };
  } // {
    outputDir = mkOption {
      type = types.str;
      default = "/run/secrets";
      example = "/run/opnix-secrets";
      description = "Where relative paths start. Below `/run` it is memory, which opnix mounts there and nothing else may be in: beside sops-nix, name a directory of its own, such as `/run/opnix-secrets`. Elsewhere secrets would lie on the disk in plain text.";
    };
    sealedTokenFile = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = "/etc/credstore.encrypted/opnix-token";
      description = "The file with the token, sealed by `opnix token set --seal` on this machine, instead of `tokenFile`: on disk it is never in plain. It may be in the Nix store. Without the file the service starts, as without a token; one that is there and does not open, as on another machine, keeps it from starting.";
    };
    users = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "alice" ];
      description = "Users of the group `onepassword-secrets`, which may read the token, to use `opnix env` and `opnix secret`.";
    };
    metrics.enable = lib.mkEnableOption "metrics in /run/opnix-metrics/opnix.prom, for node_exporter's textfile collector, and with systemd 262 and later for systemd-report" // { example = true; };
    persistence = {
      root = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "/persist";
        description = "With impermanence: what is kept where. The token's directory and the sealed cache with its key are listed in `environment.persistence` then.";
      };
      directories = mkOption {
        type = types.listOf types.str;
        default = [ "/var/lib/private/opnix" "/var/lib/opnix-mirror" "/var/lib/systemd" "/etc/credstore.encrypted" ];
        example = [ "/var/lib/private/opnix" ];
        description = "The directories besides the token's. Leave out what is listed elsewhere: impermanence takes nothing twice.";
      };
      files = mkOption {
        type = types.listOf types.str;
        default = [ "/etc/machine-id" ];
        example = [ ];
        description = "The files, likewise. systemd's key for this machine, in /var/lib/systemd, opens for this machine-id only.";
      };
    };
  };

  options.systemd.services = mkOption {
    type = types.attrsOf (types.submodule (import ./unit.nix {
      inherit lib readers refreshes;
      inherit (mapping) environmentFile;
      enabled = cfg.enable;
      socket = "/run/opnix/creds.sock";
    }));
  };

  config = mkIf cfg.enable {
    services.onepassword-secrets.secretPaths =
      lib.filterAttrs (_: path: path != null) (lib.mapAttrs mapping.pathOf (cfg.secrets // cfg.templates));

    assertions = map
      (one: {
        assertion = builtins.match "op://[^/]+/[^/]+/.+" one.reference != null;
        message = ''${one.where}: "${one.reference}" is no secret reference: write op://vault/item/field, as "Copy Secret Reference" in 1Password gives it.'';
      })
      references
    ++ lib.mapAttrsToList
      (name: entry: {
        assertion = builtins.match "[0-7]{3,4}" entry.mode != null;
        message = ''services.onepassword-secrets: the mode "${entry.mode}" of ${name} is not 3 or 4 octal digits: write "0400".'';
      })
      (cfg.secrets // cfg.templates)
    ++ map
      (path: {
        assertion = false;
        message = "services.onepassword-secrets: two secrets or templates are to be ${path}: give one of them another `path`.";
      })
      twice
    ++ lib.mapAttrsToList
      (name: path: {
        assertion = false;
        message = "services.onepassword-secrets: nothing is said for the word in braces in ${path}, the path of ${name}: set it in its `variables` or in `defaults`.";
      })
      wordless
    ++ lib.mapAttrsToList
      (name: user: {
        assertion = false;
        message = "users.users.${name}.hashedPasswordFile: NixOS sets passwords before opnix has written ${user.hashedPasswordFile}, and the user would have none: keep the hash that `mkpasswd` prints in a file outside of 1Password that is there at boot.";
      })
      passwords
    ++ map
      (one: {
        assertion = length one <= 107;
        message = ''systemd.services.${one.name}.onepassword.credentials.${one.id}: the two names are ${toString (length one - 107)} bytes too long together, and systemd could not ask: shorten one.'';
      })
      ofUnits
    ++ map
      (one: {
        assertion = lib.count (said: said != null) [ one.credential.reference one.credential.template one.credential.templateFile ] == 1;
        message = "systemd.services.${one.name}.onepassword.credentials.${one.id}: give a `reference`, a `template` or a `templateFile`, one of them.";
      })
      ofUnits
    ++ lib.mapAttrsToList
      (name: entry: {
        assertion = (entry.template == null) != (entry.templateFile == null);
        message = "services.onepassword-secrets.templates.${name}: give a `template` or a `templateFile`, one of the two.";
      })
      cfg.templates
    ++ lib.mapAttrsToList
      (name: unit: {
        assertion = !(unit.onepassword.restartOnChange && hasSuffix "@" name);
        message = "systemd.services.${name}.onepassword.restartOnChange: ${name} is a template: name its instances in the `services` of a template of services.onepassword-secrets.";
      })
      config.systemd.services
    ++ [
      {
        assertion = !inStore cfg.tokenFile;
        message = "services.onepassword-secrets.tokenFile: all users can read the Nix store: name a file outside of it, as a string.";
      }
      {
        assertion = !isSealed || toString cfg.tokenFile == options.services.onepassword-secrets.tokenFile.default;
        message = "services.onepassword-secrets: the token is in `tokenFile` as it is, or in `sealedTokenFile` sealed: leave out one of the two.";
      }
      {
        assertion = !lib.hasInfix "ops_ey" (builtins.toJSON mapping.content);
        message = "services.onepassword-secrets: a token of a service account is in the configuration, which all users can read in the Nix store: put it into `tokenFile`, and revoke this one.";
      }
      {
        assertion = cfg.persistence.root == null || options.environment ? persistence;
        message = "services.onepassword-secrets.persistence.root takes the impermanence module: import it, or keep ${tokenDirectory} yourself and leave this out.";
      }
    ];
    warnings = check.warnings
    ++ map
      (name: "systemd.services.${name}: there is no such unit of OpNix's here, and these settings have no effect. In its place is ${renamed.${name}}.")
      overridden
    ++ lib.optional (cfg.configFiles != [ ] && !hasPrefix "/run/" cfg.outputDir)
      "services.onepassword-secrets: relative paths in `configFiles` are in memory, below ${mapping.memory}, and not in `outputDir`: write absolute ones there, or leave out `outputDir = \"${cfg.outputDir}\"`."
    ++ lib.optional (cfg.users != [ ] && isSealed)
      "services.onepassword-secrets.users: only root can open the token in `sealedTokenFile`, and ${toString cfg.users} cannot use it: leave out `users`."
    ++ lib.optional (cfg.users != [ ] && !isSealed && hasPrefix "/root/" token)
      "services.onepassword-secrets.users: nobody but root comes into /root, so that ${token} cannot be read by ${toString cfg.users}: keep the token elsewhere, such as /etc/opnix-token, or leave out `users`."
    ++ lib.optional
      (!refreshes && builtins.any (one: one.credential.onChange == "reload") ofUnits)
      ''services.onepassword-secrets: `onChange = "reload"` gives a unit its new credential with systemd 260 and later only: before, opnix restarts it after that.''
    ++ lib.optional (isMemory && cfg.persistence.root == null && builtins.match "/(persist|nix)/.*" token == null)
      "services.onepassword-secrets: the root is in memory, and so ${token} is gone at reboot: set `persistence.root`, or name a file that is kept.";

    environment = {
      systemPackages = [ cfg.package ];
      etc = {
        "opnix/secrets.json".source = checked;
      } // builtins.listToAttrs (lib.imap0
        (number: file: {
          name = "opnix/secrets.d/${toString number}-${lib.removeSuffix ".json" (builtins.unsafeDiscardStringContext (baseNameOf file))}.json";
          value.source = file;
        })
        cfg.configFiles);
    } // optionalAttrs (options.environment ? persistence) {
      persistence = mkIf (cfg.persistence.root != null) {
        ${toString cfg.persistence.root} = {
          directories = cfg.persistence.directories
            ++ optional (!tokenIsKept && !isShared) { directory = tokenDirectory; mode = "0700"; };
          files = cfg.persistence.files ++ optional (!tokenIsKept && isShared) token;
        };
      };
    };

    users.groups.onepassword-secrets.members = cfg.users;
    systemd.tmpfiles.rules = [
      # systemd insists on the mode, also where impermanence made the directory.
      "d /var/lib/private 0700 root root -"
    ] ++ optional (cfg.users != [ ] && !isSealed) "z ${token} 0640 root onepassword-secrets -";

    system.checks = optional (strangers != [ ]) areKnown;

    # The unit files are the package's; here is only what depends on the configuration.
    systemd.packages = [ cfg.package ] ++ lib.mapAttrsToList dropIn toldByDropIn
      ++ lib.mapAttrsToList retry (lib.filterAttrs (_: isRetried) config.systemd.services);
    systemd.sockets.opnix.wantedBy = [ "sockets.target" ];
    systemd.sockets.opnix-control.wantedBy = [ "sockets.target" ];
    systemd.timers.opnix-metrics = mkIf cfg.metrics.enable { wantedBy = [ "timers.target" ]; };
    # systemd-creds, which opens a token that is sealed.
    systemd.services.opnix-metrics = mkIf cfg.metrics.enable { path = [ config.systemd.package ]; stopIfChanged = false; };
    systemd.sockets.opnix-report = mkIf hasReport { wantedBy = [ "sockets.target" ]; };
    # Each answers one who asks, and cannot be started again.
    systemd.services."opnix-report@" = mkIf hasReport { stopIfChanged = false; restartIfChanged = false; };
    systemd.services.opnix = {
      # A stop would refuse the requests that wait, and a switch stops opnix.socket with it; a restart hands them to the next
      # instance. The others have it, too, so that none is missed: a test looks.
      stopIfChanged = false;
      reloadTriggers = [ checked ] ++ cfg.configFiles;
      serviceConfig =
        if isSealed then { LoadCredentialEncrypted = [ "token:${token}" ]; }
        else { LoadCredential = [ "token:${token}" ]; };
    };
    systemd.services.opnix-setup.stopIfChanged = false;
    systemd.services.opnix-key.stopIfChanged = false;
    systemd.services.opnix-token.stopIfChanged = false;
    systemd.services.opnix-mount.stopIfChanged = false;
    # `journalctl -x` explains what an index of systemd's own package has; systemd from 256 on makes it of another directory, too.
    systemd.services.opnix-catalog = {
      description = "Explanations of opnix's journal records";
      wantedBy = [ "multi-user.target" ];
      after = [ "systemd-journal-catalog-update.service" ];
      stopIfChanged = false;
      serviceConfig = { Type = "oneshot"; RemainAfterExit = true; RuntimeDirectory = "opnix-catalog"; };
      script = ''
        cp -f ${config.systemd.package}/lib/systemd/catalog/*.catalog ${cfg.package}/lib/systemd/catalog/*.catalog "$RUNTIME_DIRECTORY" &&
          SYSTEMD_CATALOG_SOURCES=$RUNTIME_DIRECTORY journalctl --update-catalog || echo "journalctl -x does not explain opnix's records" >&2
      '';
    };
    systemd.services.opnix-mirror = {
      wantedBy = [ "multi-user.target" ];
      # OpNix's name for it.
      aliases = [ "opnix-secrets.service" ];
      stopIfChanged = false;
      reloadTriggers = [ checked ] ++ cfg.configFiles;
      serviceConfig = {
        InaccessiblePaths = [ "-${token}" ];
      } // optionalAttrs (outside != [ ]) {
        ReadWritePaths = map (directory: "-${directory}") (lib.unique (map dirOf outside));
      };
    };
  };
}
